"""The files of a shared directory, reached so that nothing outside can be.

Every step from a directory to an entry is one ``openat`` of one name with O_PATH and O_NOFOLLOW: symbolic
links are never followed, ``..`` leads to the directory one came from and stops at the root, and a name with a
slash is none. What is opened for reading or writing is the very file that was reached, through
``/proc/self/fd``, and only if it is a regular file or a directory: opening a named pipe or a device of the
host could block it or do worse.

A :class:`Node` is a file that a guest knows. Nodes form a tree by the names they were reached by. A node's
O_PATH descriptor is kept while it is in use a lot; when too many are open, the one that was used longest ago
is closed, and opened again by name when needed. If the name then leads to another file, the node is stale
(ESTALE).
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from pathlib import Path

from doppel.devices.backends.share.wire import fail
from doppel.errors import DoppelError

__all__ = ["Node", "Tree"]

_REACH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_NAME = 255
_MAX_DEPTH = 128
_MAX_NODES = 1 << 17
_MAX_DESCRIPTORS = 128
# Deleted files can be reached through their descriptor only; that many of them are kept.
_MAX_DELETED = 64


class Node:
    """A file below the root, and the name it was reached by."""

    __slots__ = ("children", "deleted", "descriptor", "identity", "name", "parent", "references", "type")

    def __init__(self, parent: Node | None, name: bytes, descriptor: int, status: os.stat_result) -> None:
        self.parent = parent
        self.name = name
        self.children: dict[bytes, Node] = {}
        self.references = 1
        self.descriptor = descriptor
        self.identity = (status.st_dev, status.st_ino)
        self.type = stat.S_IFMT(status.st_mode)
        self.deleted = False

    @property
    def is_directory(self) -> bool:
        """Whether it has entries."""
        return self.type == stat.S_IFDIR

    def ancestry(self) -> list[Node]:
        """This node and all above it, the root last unless this one has lost its place in the tree."""
        nodes: list[Node] = []
        node: Node | None = self
        while node is not None:
            nodes.append(node)
            node = node.parent
        return nodes


def check_name(name: bytes) -> None:
    """Refuse what is not the name of one entry."""
    if not name or name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise fail(errno.EINVAL)
    if len(name) > _MAX_NAME:
        raise fail(errno.ENAMETOOLONG)


class Tree:
    """The nodes of one shared directory. All methods that touch the host raise OSError."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            descriptor = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise DoppelError(
                f"there is no directory {self.path} to share", "make it, or name another"
            ) from None
        except NotADirectoryError:
            raise DoppelError(
                f"{self.path} is not a directory", "share the directory that it is in"
            ) from None
        except OSError as error:
            raise DoppelError(
                f"cannot share {self.path}: {error.strerror}",
                "change its permissions, or share another directory",
            ) from error
        if not os.path.isdir("/proc/self/fd"):
            os.close(descriptor)
            raise DoppelError(
                "sharing a directory needs /proc, which is not mounted", "mount -t proc proc /proc"
            )
        self.root = Node(None, b"", descriptor, os.fstat(descriptor))
        self._open: OrderedDict[Node, None] = OrderedDict()
        self._count = 1
        self._deleted = 0

    # Nodes and their descriptors

    def descriptor(self, node: Node) -> int:
        """The node's O_PATH descriptor, valid until :meth:`trim`."""
        if node is self.root:
            return node.descriptor
        if node.descriptor < 0:
            self._reopen(node)
        self._open[node] = None
        self._open.move_to_end(node)
        return node.descriptor

    def _reopen(self, node: Node) -> None:
        """By the names from the nearest node above that has a descriptor."""
        steps: list[Node] = []
        above: Node | None = node
        while above is not None and above.descriptor < 0:
            steps.append(above)
            above = above.parent
        if above is None:
            raise fail(errno.ESTALE)
        current = above.descriptor
        try:
            for step in reversed(steps):
                following = os.open(step.name, _REACH, dir_fd=current)
                if current != above.descriptor:
                    os.close(current)
                current = following
            status = os.fstat(current)
            if (status.st_dev, status.st_ino) != node.identity:
                raise fail(errno.ESTALE)
        except OSError as error:
            if current != above.descriptor:
                os.close(current)
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                raise fail(errno.ESTALE) from None
            raise
        node.descriptor = current

    def trim(self) -> None:
        """Close descriptors that were not used for long; call between requests."""
        excess = len(self._open) - _MAX_DESCRIPTORS
        if excess > 0:
            idle = [node for node in self._open if not node.deleted][:excess]
            for node in idle:
                self._close(node)

    def _close(self, node: Node) -> None:
        self._open.pop(node, None)
        if node.descriptor >= 0:
            os.close(node.descriptor)
            node.descriptor = -1

    def retain(self, node: Node) -> Node:
        """One more user of ``node``."""
        node.references += 1
        return node

    def release(self, node: Node) -> None:
        """One user less; the last one closes it."""
        current: Node | None = node
        while current is not None:
            current.references -= 1
            if current.references:
                return
            self._close(current)
            self._count -= 1
            self._deleted -= current.deleted
            above = current.parent
            if above is not None and above.children.get(current.name) is current:
                del above.children[current.name]
            current.parent = None
            current = above

    def _detach(self, node: Node) -> None:
        """Take a node out of its place: its name leads elsewhere now."""
        above = node.parent
        if above is not None:
            if above.children.get(node.name) is node:
                del above.children[node.name]
            node.parent = None
            self.release(above)

    def walk(self, node: Node, name: bytes) -> Node:
        """The entry ``name`` of ``node``, with one more user."""
        if name == b"..":
            return self.retain(node.parent or self.root)
        check_name(name)
        descriptor = os.open(name, _REACH, dir_fd=self.descriptor(node))
        status = os.fstat(descriptor)
        known = node.children.get(name)
        if known is not None:
            if known.identity == (status.st_dev, status.st_ino):
                if known.descriptor < 0:
                    known.descriptor = descriptor
                else:
                    os.close(descriptor)
                self._open[known] = None
                return self.retain(known)
            self._detach(known)
        if self._count >= _MAX_NODES or len(node.ancestry()) > _MAX_DEPTH:
            os.close(descriptor)
            raise fail(errno.ENFILE if self._count >= _MAX_NODES else errno.ENAMETOOLONG)
        child = Node(self.retain(node), name, descriptor, status)
        node.children[name] = child
        self._open[child] = None
        self._count += 1
        return child

    def close(self) -> None:
        """Close every descriptor; the tree cannot be used any more."""
        for node in list(self._open):
            self._close(node)
        self._close(self.root)

    # What can be done with files

    def link_path(self, node: Node) -> str:
        """A path that the host resolves to this very file, even if it is a symbolic link or has no name."""
        return f"/proc/self/fd/{self.descriptor(node)}"

    def status(self, node: Node) -> os.stat_result:
        """``fstat`` of the file itself."""
        return os.fstat(self.descriptor(node))

    def open(self, node: Node, flags: int) -> int:
        """A descriptor for reading or writing; symbolic links and special files are refused."""
        if node.is_directory:
            if flags & (os.O_ACCMODE | os.O_TRUNC):
                raise fail(errno.EISDIR)
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.descriptor(node))
        if node.type != stat.S_IFREG:
            raise fail(errno.ELOOP if node.type == stat.S_IFLNK else errno.EACCES)
        return os.open(self.link_path(node), flags | os.O_CLOEXEC | os.O_NOCTTY)

    def create(self, directory: Node, name: bytes, flags: int, mode: int) -> int:
        """Make a regular file and open it; EEXIST if there is any entry of that name."""
        check_name(name)
        flags |= os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, mode, dir_fd=self.descriptor(directory))
        # Not subject to the umask of this process: the guest has applied its own.
        os.fchmod(descriptor, mode)
        return descriptor

    def make_directory(self, directory: Node, name: bytes, mode: int) -> None:
        """Make a directory."""
        check_name(name)
        os.mkdir(name, mode, dir_fd=self.descriptor(directory))

    def make_symbolic_link(self, directory: Node, name: bytes, target: bytes) -> None:
        """Make a symbolic link; where it points is of no concern, it is never followed here."""
        check_name(name)
        if b"\0" in target:
            raise fail(errno.EINVAL)
        os.symlink(target, name, dir_fd=self.descriptor(directory))

    def link(self, node: Node, directory: Node, name: bytes) -> None:
        """Give a file another name."""
        check_name(name)
        os.link(self.link_path(node), name, dst_dir_fd=self.descriptor(directory), follow_symlinks=True)

    def read_link(self, node: Node) -> bytes:
        """Where a symbolic link points."""
        if node.type != stat.S_IFLNK:
            raise fail(errno.EINVAL)
        return os.readlink(b"", dir_fd=self.descriptor(node))

    def remove(self, directory: Node, name: bytes, *, is_directory: bool) -> None:
        """Remove an entry. A guest that knows the file can go on using it."""
        check_name(name)
        known = directory.children.get(name)
        self._hold(known)
        (os.rmdir if is_directory else os.unlink)(name, dir_fd=self.descriptor(directory))
        self._lose(known)

    def rename(self, directory: Node, name: bytes, new_directory: Node, new_name: bytes) -> None:
        """Move an entry, in the place of another one if there is one; nodes below move along."""
        check_name(name)
        check_name(new_name)
        moved, replaced = directory.children.get(name), new_directory.children.get(new_name)
        self._hold(replaced)
        os.rename(
            name,
            new_name,
            src_dir_fd=self.descriptor(directory),
            dst_dir_fd=self.descriptor(new_directory),
        )
        if moved is replaced and moved is not None:
            return
        self._lose(replaced)
        if moved is None:
            return
        if moved in new_directory.ancestry():
            # Possible only if the host moved directories in between: what is known here is out of date.
            self._detach(moved)
            return
        del directory.children[name]
        moved.parent, moved.name = self.retain(new_directory), new_name
        new_directory.children[new_name] = moved
        self.release(directory)

    def _hold(self, node: Node | None) -> None:
        """Have a descriptor of a node whose name is about to go."""
        if node is not None:
            try:
                self.descriptor(node)
            except OSError:
                # Its name had gone before.
                return

    def _lose(self, node: Node | None) -> None:
        """A node's name is gone."""
        if node is not None:
            if self._deleted < _MAX_DELETED and not node.deleted:
                node.deleted = True
                self._deleted += 1
            self._detach(node)
