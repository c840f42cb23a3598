// Unicode normalisation form C, as Hugging Face's tokenizers applies it (its age of Unicode
// included, see unicode_tables.h). Own code rather than ICU or utf8proc: their tables are of
// another age, and an added dependency for 100 lines. UAX 15 is the source.
#pragma once

#include <string>
#include <string_view>

namespace ferry::text {

/// Whether some character of the text may be changed by NFC, or may change under a neighbour.
bool nfc_may_change(std::string_view text);

/// The text in NFC. Ill-formed bytes stay as they are, and nothing composes across them.
std::string to_nfc(std::string_view text);

}  // namespace ferry::text
