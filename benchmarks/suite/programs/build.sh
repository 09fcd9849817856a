#!/bin/sh
# One unit of the build-like load: makes sources, "compiles" each in processes of its own, "links" and packs the
# results, about 100 processes in all. Prints a digest of everything.
set -eu
folder=$(busybox mktemp -d)
cd "$folder"

compile() {
    busybox sed -e 's/line/instruction/' -e 's/ \(.*\) / [\1] /' "$1" | busybox grep -v '7$' >"$1.s"
    busybox awk '{ sum += length($0) * NR } END { print FILENAME, sum }' "$1.s" >"$1.o"
    (
        busybox sha1sum <"$1.s"
        busybox expr "$(busybox wc -c <"$1.s")" \* 3
    ) >>"$1.o"
}

for part in 1 2 3 4 5 6; do
    busybox seq 1 40 | busybox sed "s/.*/line & of part $part/" >"part$part.c"
    compile "part$part.c"
done
busybox cat ./*.o | busybox sort | busybox uniq >linked
busybox head -n 3 linked | busybox tr a-z A-Z >>linked
busybox tail -n 2 linked | busybox cut -d ' ' -f 1 >>linked
busybox gzip -c linked | busybox gunzip -c | busybox cmp - linked
for file in ./*; do
    busybox test -s "$file"
    busybox basename "$file" .o
done >names
digest=$(busybox cat linked names | busybox md5sum)
cd /
busybox rm -r "$folder"
busybox printf '%.16s\n' "$digest"
