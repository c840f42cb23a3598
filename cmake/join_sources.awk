# Which source files may be compiled as one: prints "GROUP FILE" for each of its arguments, in their order.
#
# Files that are joined share their unnamed namespaces. So no file of a group may so much as mention a name that another
# one declares there: it might be given that one's. (Another name for the same type is no hindrance, where both have it.)
# What is declared there is what declarations at the beginning of a line declare. A group has `most` files at most
# (awk -v most=8 -f join_sources.awk FILE...).

function declare(name) {
  if (name != "") declared[FILENAME] = declared[FILENAME] " " name
}

FNR == 1 { unnamed = 0; files[++count] = FILENAME }
{
  # Words, without what a comment says.
  line = $0
  sub(/\/\/.*/, "", line)
  gsub(/[^A-Za-z0-9_]+/, " ", line)
  words[FILENAME] = words[FILENAME] " " line
}
/^namespace \{/ { unnamed = 1; next }
/^\}  \/\/ namespace$/ { unnamed = 0; next }
/^#define / { split($2, macro, "("); declare(macro[1]); next }
/^TEST|^INSTANTIATE|^ / { next }
!unnamed && !/^(static|const|constexpr|inline) / { next }  # these are each file's own, too
/^using [A-Za-z_]+ = .*;$/ { declare($2); type_of[FILENAME, $2] = $0; next }
/^using / { name = $2; sub(/;.*/, "", name); sub(/.*::/, "", name); declare(name); next }
/^(struct|class|enum|enum class) / {
  name = $2 == "class" ? $3 : $2
  gsub(/[^A-Za-z0-9_].*/, "", name)
  declare(name)
  next
}
/^[A-Za-z]/ {
  # The last word before a parameter list, a value, a bound or the end.
  line = $0
  sub(/ = .*/, "", line)
  sub(/(\(|\{|\[|;).*/, "", line)
  if (match(line, /[A-Za-z_][A-Za-z0-9_]*$/)) declare(substr(line, RSTART, RLENGTH))
}

END {
  for (i = 1; i <= count; ++i) {
    file = files[i]
    owned = split(declared[file], own, " ")
    split(words[file], every, " ")
    split("", mentioned)
    for (j in every) mentioned[every[j]] = type_of[file, every[j]]
    for (group = 1; !may_join(); ++group) {}
    ++size[group]
    for (j = 1; j <= owned; ++j) declares[group, own[j]] = type_of[file, own[j]]
    for (word in mentioned) mentions[group, word] = mentioned[word]
    print group, file
  }
}

# Whether the file whose words are `mentioned`, and whose names `own`, goes with those of the group.
function may_join(  j, word) {
  if (size[group] >= most) return 0
  for (j = 1; j <= owned; ++j) if ((group, own[j]) in mentions && differ(mentions[group, own[j]], mentioned[own[j]])) return 0
  for (word in mentioned) if ((group, word) in declares && differ(declares[group, word], mentioned[word])) return 0
  return 1
}

function differ(one, other) { return one == "" || one != other }
