// The byte-level alphabet of GPT-2: every byte is written as one printable character, so that
// tokens can stand in JSON. Printable Latin-1 bytes are themselves; the other 68 become U+0100,
// U+0101, ...
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace ferry::text {

/// The character that stands for the byte.
char32_t byte_to_letter(unsigned char byte);

/// The bytes that a token's text stands for; nothing if a character is not in the alphabet.
std::optional<std::string> letters_to_bytes(std::string_view token_text);

std::string bytes_to_letters(std::string_view bytes);

/// Whether a vocabulary may lack a token for the byte: those that are learnt from text have none for what it did
/// not hold, which are bytes that no UTF-8 has, control characters, and the first bytes of planes with next to
/// nothing in them. JSON needs none of them.
bool may_be_missing(unsigned byte);

}  // namespace ferry::text
