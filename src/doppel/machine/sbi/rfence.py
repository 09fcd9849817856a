"""Remote fences. Source: SBI 2.0, chapter 8.

All of them have the same effect: the target forgets every cached translation and looks at decoded code anew,
which is more than any of them asks for. The functions for hypervisors are not supported, for want of the
hypervisor extension.
"""

from __future__ import annotations

from collections.abc import Sequence

from doppel.machine.sbi.extension import Call, Extension, Function, SbiError, SbiFailure, hart_set

__all__ = ["RemoteFence"]


class RemoteFence(Extension):
    """FENCE.I and SFENCE.VMA on other harts; complete when the call returns."""

    identifier = 0x52464E43

    def functions(self) -> Sequence[Function]:
        """In the order of their numbers."""
        return (self.remote_fence_i, self.remote_sfence_vma, self.remote_sfence_vma)

    def remote_fence_i(self, call: Call) -> int:
        """Later fetches of the harts of a mask see earlier stores."""
        mask, base = call.arguments[:2]
        self.platform.fence(hart_set(mask, base, len(self.platform.harts)), call.hart.index)
        return 0

    def remote_sfence_vma(self, call: Call) -> int:
        """Translations of an address range; the whole address space if start and size are 0 or size is -1."""
        mask, base, start, size = call.arguments[:4]
        harts = hart_set(mask, base, len(self.platform.harts))
        # 8.2: the only way for a range to be wrong is to reach beyond the address space.
        if size != (1 << 64) - 1 and start + size > 1 << 64:
            raise SbiFailure(SbiError.INVALID_ADDRESS)
        self.platform.fence(harts, call.hart.index)
        return 0
