// Descriptors 0 to 2: a caller may have closed them (`>&-`), and the next file that is opened would
// get their numbers, and whatever is printed for its content.
#pragma once

namespace ferry {

/// Opens /dev/null in place of each of standard input, output and error that is closed; as output
/// only for reading, so that whoever was to print something hears that it cannot. To be called
/// before anything else opens a file. False: one is closed, and /dev/null cannot be opened.
[[nodiscard]] bool hold_standard_descriptors();

/// Whether standard output can only be read: the caller of this process, or of one that started it,
/// had closed it.
bool output_is_closed();

}  // namespace ferry
