// Descriptors 0 to 2: a caller may have closed them (`>&-`), and the next file that is opened would
// get their numbers, and whatever is printed for its content.
#pragma once

namespace ferry {

/// Opens /dev/null in place of each of standard input, output and error that is closed. To be called
/// before anything else opens a file. False: one is closed, and /dev/null cannot be opened.
[[nodiscard]] bool hold_standard_descriptors();

}  // namespace ferry
