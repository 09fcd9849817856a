#!/bin/busybox sh
# The first process of doppel's small guest: mount the kernel's file systems, load the drivers of the devices
# that are there, then give the console a shell, or run the one command that the kernel command line names,
# and power off. What the command line may say (all optional):
#   doppel.run=WORD or doppel.run="COMMAND LINE"   run this and power off with its exit status
#   doppel.run64=BASE64                            the same for any text
#   doppel.term=NAME  doppel.size=ROWSxCOLUMNS     the terminal behind the console
#   root=DEVICE [rootfstype=TYPE] [ro] [init=PATH] start the system on a disk instead
# Starting a program costs a guest a million instructions or more, so builtins do what they can.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root USER=root TERM=vt100
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
echo doppel >/proc/sys/kernel/hostname
ip link set lo up
# Errors only on the console from here on, or messages of drivers end up in the middle of what people type.
echo 4 >/proc/sys/kernel/printk
read -r command_line </proc/cmdline
command_line=" $command_line "

# Set `value` from the last `name=value` or `name="quoted value"` of the command line; false if there is none.
argument() {
    case "$command_line" in *" $1="*) ;; *) return 1 ;; esac
    value=${command_line##*" $1="}
    case "$value" in
        '"'*) value=${value#?} value=${value%%'"'*} ;;
        *) value=${value%%[[:space:]]*} ;;
    esac
}

# Load what the devices ask for by their modalias.
coldplug() {
    wanted=
    for file; do
        [ -r "$file" ] && read -r alias <"$file" || continue
        case " $wanted " in *" $alias "*) ;; *) wanted="$wanted $alias" ;; esac
    done
    # Unquoted: several words. No file name can match them, for they contain no slash.
    [ -z "$wanted" ] || modprobe -qa $wanted
}
read -r release </proc/sys/kernel/osrelease
if [ -d "/lib/modules/$release" ]; then
    coldplug /sys/bus/platform/devices/*virtio_mmio*/modalias
    coldplug /sys/bus/virtio/devices/*/modalias
fi

# End the machine. The kernel has no way to pass an exit status on, but the "test finisher" device that powers
# it off does: 0x5555 means success, 0x3333 with a status above it failure. The kernel writes the former; the
# latter is written here through /dev/mem, at the address the device tree gives.
finish() {
    sync
    grep '^/dev/' /proc/mounts | while read -r _ place _; do umount "$place"; done
    if [ "$1" -ne 0 ]; then
        for node in $(grep -ls 'sifive,test' /proc/device-tree/*/compatible /proc/device-tree/*/*/compatible); do
            node=${node%/compatible}
            devmem "0x${node##*@}" 32 $(($1 << 16 | 0x3333))
        done
    fi
    # What the kernel says while it powers off is not part of a command's output.
    echo 0 >/proc/sys/kernel/printk
    poweroff -f
}

# A command with the console as its controlling terminal, so that Ctrl-C and job control work.
on_console() {
    # Linux throws away what a terminal has not sent yet when the leader of its session ends. So the leader is a
    # shell of its own, which waits until all is sent: setting an attribute does.
    setsid cttyhack sh -c '"$@"; status=$?; stty echo; exit $status' sh "$@"
}

if argument doppel.term; then export TERM="$value"; fi
if argument doppel.size; then stty rows "${value%x*}" columns "${value#*x}" </dev/console; fi

if argument root; then
    device=$value type=ext4 options=rw init=/sbin/init
    if argument rootfstype; then type=$value; fi
    if argument init; then init=$value; fi
    case "$command_line" in *" ro "*) options=ro ;; esac
    case "$device" in *=*) device=$(findfs "$device") ;; esac
    if mount -t "$type" -o "$options" "$device" /mnt; then
        for place in dev sys proc; do mount --move "/$place" "/mnt/$place"; done
        exec switch_root /mnt "$init"
    fi
    echo "Cannot mount $device as the root; here is a shell instead."
fi

# The folders that the host shares: each is in /mnt under its tag.
for file in /sys/bus/virtio/drivers/9pnet_virtio/virtio*/mount_tag; do
    [ -r "$file" ] || continue
    # The tag ends the file without a newline, so that reading it "fails".
    read -r tag <"$file" || true
    mkdir -p "/mnt/$tag"
    mount -t 9p -o trans=virtio,version=9p2000.L "$tag" "/mnt/$tag"
done

cd /root || true
if argument doppel.run64; then
    on_console sh -c "$(echo "$value" | base64 -d)"
elif argument doppel.run; then
    on_console sh -c "$value"
else
    read -r harts </sys/devices/system/cpu/online
    read -r _ memory _ </proc/meminfo
    echo
    echo "Linux $release, harts: $((${harts##*-} + 1)), memory: $((memory / 1024)) MB."
    echo "A busybox system in memory; \"exit\" or Ctrl-D powers the machine off."
    on_console sh -l
fi
finish $?
