// A mapped file that cannot be read after all (its disk fails, somebody cut it short) is a signal where it is used,
// SIGBUS, and nothing that a call could return: here it gets words, with the file's name.
#pragma once

#include <cstddef>
#include <string>

namespace ferry {

/// Of this process, from now on. It ends by that signal all the same, in a mapped file and elsewhere.
void tell_of_mapped_faults();

/// By MappedFile: so many bytes from `data` on are `path`'s, until they are let go. What is mapped beyond the 4,096th
/// file at a time is not told by name.
void note_mapping(const void* data, size_t bytes, const std::string& path);
void forget_mapping(const void* data);

}  // namespace ferry
