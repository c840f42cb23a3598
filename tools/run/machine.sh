# How much of the machine a build may take. Sourced by ./run.

# Compilers at once: as many as processors, or as the cgroups' quotas and memory allow: one takes up to
# 1 GiB (a test with sanitizers).
build_jobs() {
  local jobs memory
  jobs=$(nproc)
  memory=$(awk '/^MemAvailable:/ { print int($2 / 1048576) }' /proc/meminfo)
  jobs=$(smaller "$jobs" "$memory")
  local group=
  if [ -r /proc/self/cgroup ]; then group=$(sed -n 's/^0:://p' /proc/self/cgroup); fi
  while :; do
    local here=/sys/fs/cgroup$group
    if [ -r "$here/cpu.max" ]; then
      jobs=$(smaller "$jobs" "$(awk '$1 != "max" { print int(($1 + $2 - 1) / $2) }' "$here/cpu.max")")
    fi
    if [ -r "$here/memory.max" ]; then
      jobs=$(smaller "$jobs" "$(awk '$1 != "max" { printf "%.0f", int($1 / 1073741824) }' "$here/memory.max")")
    fi
    [ -n "${group%/}" ] || break
    group=${group%/*}
  done
  # Version 1, as a container sees its own group.
  if [ -r /sys/fs/cgroup/cpu/cpu.cfs_quota_us ]; then
    jobs=$(smaller "$jobs" "$(awk 'FNR == NR { quota = $1; next } quota > 0 && $1 > 0 { print int((quota + $1 - 1) / $1) }' \
      /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us)")
  fi
  if [ -r /sys/fs/cgroup/memory/memory.limit_in_bytes ]; then
    jobs=$(smaller "$jobs" "$(awk '{ printf "%.0f", int($1 / 1073741824) }' /sys/fs/cgroup/memory/memory.limit_in_bytes)")
  fi
  [ "$jobs" -ge 1 ] || jobs=1
  echo "$jobs"
}

# smaller A B: the smaller of two numbers; B may be nothing
smaller() { if [ -n "$2" ] && [ "$2" -lt "$1" ]; then echo "$2"; else echo "$1"; fi; }
