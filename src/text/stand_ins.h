// Characters as PCRE2 is to see them, whatever version of Unicode it knows.
#pragma once

namespace ferry::text {

/// The stand-in of a character that is younger than PCRE2's tables (unicode_tables.h), else the character itself.
char32_t stand_in_of(char32_t point);

}  // namespace ferry::text
