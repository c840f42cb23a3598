#!/usr/bin/env bash
# The program asks libm for nothing whose result is rounded as the version likes: what tests/source_rules.cc cannot see
# in the text (a call without std::, or one that the compiler makes) the linker has written down. What IEEE 754 fixes to
# the last bit (fma, floor, ldexp and the like) may be asked for. usage: libm_test.sh FERRY
set -euo pipefail
inexact='a?(cos|sin|tan)h?|atan2|sincos|exp|exp2|exp10|expm1|log|log2|log10|log1p|pow|hypot|cbrt|erfc?|[lt]gamma|j[01n]|y[01n]'
asked() { grep -xE "(__)?($inexact)[fl]?(_finite)?"; }
[ "$(printf 'pow\nlogf\nfma\nlogin\n__exp_finite\n' | asked | wc -l)" = 3 ] ||
  { echo "the pattern does not find what it is to find" >&2 && exit 1; }
symbols=$(nm -D --undefined-only "$1" | sed -E 's/^ *U //; s/@.*//')
grep -qx write <<<"$symbols" || { echo "$1 asks for nothing that every program asks for: it cannot be read" >&2 && exit 1; }
if found=$(asked <<<"$symbols"); then
  echo "$1 calls libm: $(echo "$found" | tr '\n' ' '); base/math.h has these" >&2
  exit 1
fi
