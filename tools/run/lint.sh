# ./run lint. Sourced by ./run, whose functions it uses.

lint() {
  packages build test lint
  local failed=0 files
  configure build -DFERRY_TESTS=ON
  configure build-lint -DFERRY_TESTS=ON -DCMAKE_CXX_COMPILER=clang++  # nothing is built: how it would be
  mapfile -t files < <(git ls-files 'src/*.h' 'src/*.cc' 'tests/*.h' 'tests/*.cc' 'bench/*.h' 'bench/*.cc' \
    'ascend_sim/*.h' 'ascend_sim/*.cc' 'nvidia_sim/*.h' 'nvidia_sim/*.cc')

  say "Layout (clang-format); to mend: clang-format -i FILE"
  printf '%s\n' "${files[@]}" |
    xargs -P "$jobs" -I{} sh -c 'clang-format --dry-run -Werror "$1" >/dev/null 2>&1 || echo "   $1"' _ {} |
    sort >build/unformatted.txt
  if [ -s build/unformatted.txt ]; then
    cat build/unformatted.txt
    echo "$(wc -l <build/unformatted.txt) of ${#files[@]} files differ from .clang-format"
    failed=1
  fi

  say "clang-tidy"
  printf '%s\n' "${files[@]}" | grep '\.cc$' | grep -v '_cpu\.cc$' |
    xargs -P "$jobs" -n 4 clang-tidy -p build-lint --quiet 2>build-lint/clang_tidy.log || failed=1

  say "Include rules and banned calls"
  cmake --build build --target layers_test tidy_test -j "$jobs"
  build/tests/layers_test --gtest_brief=1 || failed=1
  build/tests/tidy_test --gtest_brief=1 || failed=1
  [ "$failed" = 0 ] || { echo "lint: failed"; exit 1; }
  echo "lint: nothing to mend"
}
