# ./run test [all | page | servers | clients | llama-server | crowd | balancer | NAME...]. Sourced by ./run, whose functions it uses.
#
# To add a check that only `all` makes: a function that builds what it needs, called by test_everything, and an entry
# of ctest (cmake/checks.cmake) under a name whose first part stands in only_all.
only_all='tsan|aarch64|fuzz'

test_command() {
  if [ "${1:-}" = page ]; then
    . tools/run/page.sh
    shift
    test_page "$@"
    return
  fi
  case ${1:-} in
    servers)
      . tools/run/servers.sh
      shift
      test_servers "$@"
      return
      ;;
    clients | llama-server | crowd | balancer)
      . tools/run/clients.sh
      "test_${1/-/_}" "${@:2}"
      return
      ;;
  esac
  packages build test
  rm -f build/ctest_all.log
  case "$*" in
    "") test_ordinary ;;
    all) test_everything ;;
    *) test_named "$@" ;;
  esac
}

# --- the ordinary tests, and all of them ---------------------------------------------------------------

test_ordinary() {
  build_tests
  build_with_address_sanitizer
  run_ctest "Running the tests" -E "^($only_all)\\."
  close_tests
}

# The ordinary tests first, and then, in the order of what they find, what there is time for where time is limited.
test_everything() {
  build_tests
  run_ctest "Running the tests" -E "^(asan|$only_all)\\."
  if time_for "AddressSanitizer" 60 600; then
    build_with_address_sanitizer
    run_ctest "Running what was built with AddressSanitizer" -R '^asan\.'
  fi
  if time_for "Clang's reading of the other sources" 30 0; then read_with_clang; fi
  if time_for "fuzzers" 15 $(($(number_of_fuzzers) * fuzz_seconds / jobs)); then
    build_fuzzers
    run_ctest "Running the fuzzers" -R '^fuzz\.'
  fi
  if time_for "ThreadSanitizer" 40 60; then
    build_for_races
    run_ctest "Running what was built with ThreadSanitizer" -R '^tsan\.'
  fi
  if time_for "aarch64" 50 120; then
    build_for_aarch64
    run_ctest "Running what was built for aarch64" -R '^aarch64\.'
  fi
  close_tests
}

fuzz_seconds=${FERRY_FUZZ_SECONDS:-20}
number_of_fuzzers() { find tests nvidia_sim -name '*_fuzz.cc' | wc -l; }

left_out=()

# time_for CHECK PERCENT SECONDS: whether FERRY_TEST_MINUTES, counted from the beginning, leave room for a check that
# takes so much of what the first build took, and so many seconds besides.
time_for() {
  [ -n "${FERRY_TEST_MINUTES:-}" ] || return 0
  [ $((SECONDS + stage_walls[0] * $2 / 100 + $3)) -gt $((FERRY_TEST_MINUTES * 60)) ] || return 0
  left_out+=("$1")
  return 1
}

configure_tests() {
  configure build -DFERRY_TESTS=ON -DFERRY_CHECKS=ON "-DFERRY_FUZZ_SECONDS=$fuzz_seconds"
}

build_tests() {
  configure_tests
  stage "Building the program and its tests (build)" ninja_build build all
}

configure_sanitized() {
  configure build-asan -DFERRY_TESTS=ON -DFERRY_SANITIZE=ON -DCMAKE_CXX_COMPILER=clang++
}

build_with_address_sanitizer() {
  configure_sanitized
  stage "Building ops, readers and backends with AddressSanitizer (build-asan)" ninja_build build-asan checked_tests
}

read_with_clang() {
  stage "Reading the other sources with Clang, warnings as errors" ninja_build build clang_syntax
}

build_fuzzers() {
  configure_sanitized
  stage "Building the fuzzers (build-asan)" ninja_build build-asan fuzzers
}

build_for_races() {
  configure build-tsan -DFERRY_TESTS=ON -DFERRY_SANITIZE_THREADS=ON
  stage "Building the Ascend backend with ThreadSanitizer (build-tsan)" ninja_build build-tsan race_tests
}

build_for_aarch64() {
  tools/aarch64_root.sh build-aarch64/root
  configure build-aarch64 -DFERRY_TESTS=ON -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64.cmake
  stage "Cross-building ops and readers for aarch64 (build-aarch64)" ninja_build build-aarch64 checked_tests
}

# ninja_build FOLDER TARGET...
ninja_build() { cmake --build "$1" --target "${@:2}" -j "$jobs"; }

tests_status=0
tests_run=0
tests_failed=0
closing_pattern='^[0-9]+% tests passed, ([0-9]+) tests failed out of ([0-9]+)$'

# run_ctest STAGE [OPTION...]: some of ctest's tests. What they come to close_tests says, and returns.
run_ctest() {
  local closing
  stage "$1" ctest_to_log "${@:2}" || tests_status=$?
  cat build/ctest.log >>build/ctest_all.log
  # What ctest says behind its closing line: which tests failed.
  sed '1,/^[0-9]*% tests passed/d; /^$/d' build/ctest.log
  closing=$(grep -E "$closing_pattern" build/ctest.log) || return 0
  tests_run=$((tests_run + $(sed -E "s/$closing_pattern/\\2/" <<<"$closing")))
  tests_failed=$((tests_failed + $(sed -E "s/$closing_pattern/\\1/" <<<"$closing")))
}

# The table of times, and the closing line, which stands alone at the end. A status of 0 is that of tests that all passed.
close_tests() {
  slowest_tests
  times_table
  local check
  for check in "${left_out[@]}"; do
    printf '\nleft out, since FERRY_TEST_MINUTES=%s would not have been enough: %s\n' "$FERRY_TEST_MINUTES" "$check"
  done
  if [ "$tests_run" = 0 ]; then
    printf '\nno tests ran\n'
  else
    printf '\n%d%% tests passed, %d tests failed out of %d\n' \
      $(((tests_run - tests_failed) * 100 / tests_run)) "$tests_failed" "$tests_run"
  fi
  return "$tests_status"
}

ctest_to_log() {
  ctest --test-dir build --output-on-failure --no-tests=error -j "$jobs" "$@" |
    tee build/ctest.log | sed -u '/^[0-9]*% tests passed/,$d'
}

slowest_tests() {
  printf '\n%-64s %9s\n' "the slowest tests" "seconds"
  sed -nE 's/^ *[0-9]+\/[0-9]+ Test +#[0-9]+: (.*[^ .]) \.* *(Passed|\*\*\*[A-Za-z ]+) +([0-9.]+) sec.*$/\3 \1/p' build/ctest_all.log |
    sort -rn | sed -n 1,12p | while read -r seconds name; do printf '%-64s %9s\n' "$name" "$seconds"; done
}

# --- some of them ---------------------------------------------------------------------------------------

# test_named NAME...: builds what these tests need, and runs them. NAME is an op, a folder of src/, a file of
# tests/ (without _test.cc), or the name that ctest lists a test or a group of them under.
test_named() {
  local name patterns=() targets=() sanitized=() raced=() crossed=() fuzzers=()
  for name in "$@"; do
    name=${name%_test}
    case $name in
      asan.*) sanitized+=("$(program_of "${name#asan.}")"); patterns+=("$(quoted "$name")") ;;
      tsan.*) raced+=("$(program_of "${name#tsan.}")"); patterns+=("$(quoted "$name")") ;;
      aarch64.*) crossed+=("$(program_of "${name#aarch64.}")"); patterns+=("$(quoted "$name")") ;;
      fuzz.*) fuzzers+=("${name#fuzz.}"); patterns+=("$(quoted "$name")") ;;
      gpu_check) targets+=(ferry nvidia_sim cuda_tensor_test); patterns+=("gpu_check\$") ;;
      crossing) targets+=(ferry nvidia_sim ascend_sim); patterns+=("crossing(\\.|\$)") ;;
      deploy) patterns+=("deploy\$") ;;
      demo | ptx | chaos | goodput) targets+=(ferry); patterns+=("$name\$") ;;
      *)
        if [ -d "src/ops/$name" ] && [ -e "src/ops/$name/${name}_spec.cc" ]; then
          targets+=(ops_test)
          patterns+=("ops\\.($(suites_of "$name"))\\.")
        else
          targets+=("$(program_of "$name")")
          patterns+=("$(quoted "$name")(\\.|$)")
        fi
        ;;
    esac
  done
  configure_tests
  [ ${#targets[@]} = 0 ] || stage "Building" ninja_build build "${targets[@]}"
  if [ $((${#sanitized[@]} + ${#fuzzers[@]})) -gt 0 ]; then
    configure_sanitized
    stage "Building (build-asan)" ninja_build build-asan "${sanitized[@]}" "${fuzzers[@]}"
  fi
  if [ ${#raced[@]} -gt 0 ]; then
    configure build-tsan -DFERRY_TESTS=ON -DFERRY_SANITIZE_THREADS=ON
    stage "Building (build-tsan)" ninja_build build-tsan "${raced[@]}"
  fi
  if [ ${#crossed[@]} -gt 0 ]; then
    tools/aarch64_root.sh build-aarch64/root
    configure build-aarch64 -DFERRY_TESTS=ON -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64.cmake
    stage "Building (build-aarch64)" ninja_build build-aarch64 "${crossed[@]}"
  fi
  run_ctest "Running the tests" -R "^($(IFS='|' && echo "${patterns[*]}"))"
  close_tests
}

# The program that holds the tests of this name: what ctest's name begins with.
program_of() {
  local first=${1%%.*}
  if [ "$first" = ops_table ] || [ "$first" = user_files ]; then
    echo ferry
  elif [ "$first" = ascend_sim ] || [ "$first" = ascend_ops ] || [ "$first" = nvidia_sim ] || [ "$first" = cuda_ops ] || [ "$first" = cuda_tensor_ops ] || [ -e "tests/${first}_test.cc" ] ||
    [ -n "$(find "src/$first" -name '*_test.cc' -print -quit 2>/dev/null)" ]; then
    echo "${first}_test"
  else
    wrong "test: there is no op, folder or test \"$1\"; \`ctest --test-dir build -N\` lists all tests"
  fi
}

# The suites of an op, for a regular expression: its spec's, and those of the tests in its folder.
suites_of() {
  local suites
  suites=$(sed -nE 's/^TEST(_F|_P)?\(([A-Za-z0-9_]+),.*/\2/p' "src/ops/$1"/*_test.cc 2>/dev/null | sort -u | tr '\n' '|')
  echo "${suites}Spec_$1"
}

quoted() { sed 's/[.[\*^$+?(){}|]/\\&/g' <<<"$1"; }
