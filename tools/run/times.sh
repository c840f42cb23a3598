# What took how long. Sourced by ./run: stage runs a command and notes its time, times_table prints them all.

stage_names=()
stage_walls=()
stage_works=()

# Processor time of everything this shell has started and that has ended, in ticks.
work_ticks() {
  local fields
  read -r -a fields </proc/$$/stat
  echo $((fields[15] + fields[16]))
}

# stage NAME COMMAND...
stage() {
  local name=$1 wall=$SECONDS work status=0
  work=$(work_ticks)
  shift
  say "$name"
  "$@" || status=$?
  stage_names+=("$name")
  stage_walls+=($((SECONDS - wall)))
  stage_works+=($((($(work_ticks) - work) / $(getconf CLK_TCK))))
  return "$status"
}

minutes() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# The table of stages, in minutes and seconds: by the clock, and of processors.
times_table() {
  local i wall=0 work=0
  printf '\n%-64s %9s %9s\n' "what took how long (min:s)" "clock" "processor"
  for i in "${!stage_names[@]}"; do
    printf '%-64s %9s %9s\n' "${stage_names[i]}" "$(minutes "${stage_walls[i]}")" "$(minutes "${stage_works[i]}")"
    wall=$((wall + stage_walls[i]))
    work=$((work + stage_works[i]))
  done
  printf '%-64s %9s %9s\n' "all of it" "$(minutes "$wall")" "$(minutes "$work")"
}
