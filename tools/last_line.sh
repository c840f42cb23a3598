# Reads the JSON that ends what a command of Ferry's printed. Sourced.

# json NAME FILE: a field of the JSON that ends the file, as it stands there; null where there is none.
# Commas, braces and quotes may stand within a text; a quote in it has a backslash before it.
json() {
  local value
  value=$(tail -n 1 "$2" | sed -nE "s/.*[{,]\"$1\":(\"([^\"\\\\]|\\\\.)*\"|[^,}\"]*)[,}].*/\1/p")
  printf '%s' "${value:-null}"
}

# field NAME FILE: the same of a number or of a word
field() {
  local value
  value=$(json "$1" "$2")
  value=${value#\"}
  printf '%s' "${value%\"}"
}
