// Evergreen: what the patch costs a call that need not wait, against libc's own in the same run.
// SPDX-License-Identifier: MIT

import Evergreen
import EvergreenMonkey

let comparison = Comparison()
comparison.measure("not patched, no hub")
MonkeyPatch.install(.all)
comparison.measure("patched, thread without a hub")
try spawn { Comparison().measure("patched, greenlet") }.get()
