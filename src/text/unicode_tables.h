// Tables that make splitting and normalising agree with Hugging Face's tokenizers, whatever version
// of Unicode the PCRE2 of this machine knows. Made by tools/oracle/make_unicode_tables.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ferry::text {

/// Code points first..last are younger than PCRE2's tables (or moved since): before a pattern sees
/// them they are replaced by `stand_in`, an old character of the category they have in Unicode 16
/// that takes as many bytes.
struct StandInRange {
  char32_t first, last, stand_in;
};

struct Decomposition {  // canonical, complete; Hangul syllables are computed instead
  char32_t point;
  uint32_t offset, count;  // in kDecompositionParts
};

struct CombiningClass {
  char32_t point;
  uint8_t value;  // not 0
};

struct Composition {  // primary composites, exclusions left out
  char32_t first, second, composite;
};

// All sorted by their first column (compositions by their first two).
extern const StandInRange kStandIns[];
extern const size_t kStandInsCount;
extern const Decomposition kDecompositions[];
extern const size_t kDecompositionsCount;
extern const char32_t kDecompositionParts[];
extern const size_t kDecompositionPartsCount;
extern const CombiningClass kCombiningClasses[];
extern const size_t kCombiningClassesCount;
extern const Composition kCompositions[];
extern const size_t kCompositionsCount;

}  // namespace ferry::text
