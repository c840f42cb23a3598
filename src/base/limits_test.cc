// Limits as real systems write them: each test lays out the files that a process sees there.
#include "base/limits.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "base/threads.h"

namespace ferry {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr const char* kMachine =  // /proc/meminfo of a machine with 64 GiB, 48 of them available
    "MemTotal:       65837320 kB\nMemFree:         1203944 kB\nMemAvailable:   50331648 kB\n"
    "Buffers:          812340 kB\n";
constexpr uint64_t kMachineBytes = uint64_t{50331648} * 1024;
constexpr const char* kUnified =
    "35 24 0:30 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 "
    "rw,nsdelegate,memory_recursiveprot\n";

using Files = std::map<std::string, std::string>;  // content by path

/// A root folder with these files below it.
class Tree {
 public:
  explicit Tree(const Files& files) {
    std::string name = (fs::path(::testing::TempDir()) / "limits-XXXXXX").string();
    EXPECT_NE(::mkdtemp(name.data()), nullptr) << name;  // of its own: two may live at once
    root_ = name;
    for (const auto& [path, content] : files) {
      fs::create_directories((root_ / path).parent_path());
      std::ofstream(root_ / path) << content;
    }
  }
  ~Tree() { fs::remove_all(root_); }
  Tree(const Tree&) = delete;
  Tree& operator=(const Tree&) = delete;

  MemoryAvailable memory() const { return memory_available(root_.string()); }
  int processors() const { return available_processors(root_.string()); }

 private:
  fs::path root_;
};

/// What the affinity mask allows, and so the most that any quota can give here.
int affinity() { return Tree(Files{{"proc/meminfo", kMachine}}).processors(); }

TEST(Limits, WithoutCgroupsTheMachineIsTheLimit) {
  const Tree tree(Files{{"proc/meminfo", kMachine}});
  EXPECT_EQ(tree.memory().bytes, kMachineBytes);
  EXPECT_EQ(tree.memory().within, "");
  EXPECT_GE(tree.processors(), 1);
}

TEST(Limits, WithoutProcTheKernelIsAsked) { EXPECT_GT(Tree(Files{}).memory().bytes, 0u); }

TEST(Limits, DockerOnVersion2) {
  // docker run --memory 512m --cpus 1.5: a namespace of its own, so the group is the root. Most of
  // what is used is page cache, of which a part was read twice.
  const Tree tree(
      Files{{"proc/meminfo", kMachine},
            {"proc/self/cgroup", "0::/\n"},
            {"proc/self/mountinfo",
             "1021 1008 0:29 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 "
             "cgroup rw,nsdelegate\n"},
            {"sys/fs/cgroup/memory.max", "536870912\n"},
            {"sys/fs/cgroup/memory.high", "max\n"},
            {"sys/fs/cgroup/memory.current", "511705088\n"},
            {"sys/fs/cgroup/memory.stat",
             "anon 18874368\nfile 488636416\nkernel 4194304\ninactive_anon 18870272\n"
             "active_anon 4096\ninactive_file 22020096\nactive_file 466616320\n"},
            {"sys/fs/cgroup/cpu.max", "150000 100000\n"}});
  EXPECT_EQ(tree.memory().bytes, 536870912u - 511705088u + 466616320u + 22020096u);
  EXPECT_EQ(tree.memory().within, " within the limit of cgroup /");
  EXPECT_EQ(tree.processors(), std::min(2, affinity()));
}

TEST(Limits, SystemdSlicesCountFromTheTop) {
  // A session without limits, in a user's slice with some, seen by the host.
  const std::string slice = "sys/fs/cgroup/user.slice/user-1000.slice/";
  const Tree tree(Files{{"proc/meminfo", kMachine},
                        {"proc/self/cgroup", "0::/user.slice/user-1000.slice/session-3.scope\n"},
                        {"proc/self/mountinfo", kUnified},
                        {slice + "session-3.scope/memory.max", "max\n"},
                        {slice + "session-3.scope/memory.current", "104857600\n"},
                        {slice + "session-3.scope/cpu.max", "max 100000\n"},
                        {slice + "memory.max", "4294967296\n"},
                        {slice + "memory.high", "3221225472\n"},
                        {slice + "memory.current", "1073741824\n"},
                        {slice + "memory.stat", "inactive_file 0\n"},
                        {slice + "cpu.max", "25000 100000\n"},
                        {"sys/fs/cgroup/user.slice/memory.max", "max\n"},
                        {"sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n"}});
  EXPECT_EQ(tree.memory().bytes, 3221225472u - 1073741824u);
  EXPECT_EQ(tree.memory().within, " within the limit of cgroup /user.slice/user-1000.slice");
  EXPECT_EQ(tree.processors(), 1);
}

TEST(Limits, KubernetesPodsLimitTheirContainers) {
  // The container may take 2 GiB, its pod 1 GiB together with its neighbours.
  const std::string pod = "sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/pod7.slice/";
  const std::string container = pod + "cri-containerd-4b1d.scope/";
  const Tree tree(
      Files{{"proc/meminfo", kMachine},
            {"proc/self/cgroup",
             "0::/kubepods.slice/kubepods-burstable.slice/pod7.slice/cri-containerd-4b1d.scope\n"},
            {"proc/self/mountinfo", kUnified},
            {container + "memory.max", "2147483648\n"},
            {container + "memory.current", "209715200\n"},
            {container + "memory.stat", "inactive_file 104857600\n"},
            {container + "cpu.max", "200000 100000\n"},
            {pod + "memory.max", "1073741824\n"},
            {pod + "memory.current", "734003200\n"},
            {pod + "memory.stat", "inactive_file 209715200\n"},
            {pod + "cpu.max", "50000 50000\n"}});
  EXPECT_EQ(tree.memory().bytes, 1073741824u - 734003200u + 209715200u);
  EXPECT_EQ(tree.processors(), 1);
}

TEST(Limits, DockerOnVersion1SeesPathsOfTheHost) {
  // The container's own group is what is mounted; the path that /proc names exists on the host.
  const Tree tree(Files{
      {"proc/meminfo", kMachine},
      {"proc/self/cgroup",
       "12:memory:/docker/4b1d\n9:cpuset:/docker/4b1d\n4:cpu,cpuacct:/docker/4b1d\n"
       "1:name=systemd:/docker/4b1d\n0::/system.slice/containerd.service\n"},
      {"proc/self/mountinfo",
       "740 739 0:31 /docker/4b1d /sys/fs/cgroup/systemd ro,nosuid - cgroup cgroup "
       "rw,xattr,name=systemd\n"
       "741 739 0:33 /docker/4b1d /sys/fs/cgroup/cpu,cpuacct ro,nosuid master:14 - cgroup cgroup "
       "rw,cpu,cpuacct\n"
       "742 739 0:36 /docker/4b1d /sys/fs/cgroup/memory ro,nosuid master:17 - cgroup cgroup "
       "rw,memory\n"},
      {"sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n"},
      {"sys/fs/cgroup/memory/memory.usage_in_bytes", "1048576000\n"},
      {"sys/fs/cgroup/memory/memory.stat",
       "cache 943718400\nrss 62914560\ninactive_file 1\ntotal_cache 943718400\n"
       "hierarchical_memory_limit 1073741824\ntotal_inactive_file 838860800\n"},
      {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "120000\n"},
      {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"}});
  EXPECT_EQ(tree.memory().bytes, 1073741824u - 1048576000u + 838860800u);
  EXPECT_EQ(tree.processors(), std::min(2, affinity()));
}

TEST(Limits, Version1SaysWhatGroupsOutOfSightAllow) {
  const Tree tree(
      Files{{"proc/meminfo", kMachine},
            {"proc/self/cgroup", "3:memory:/kubepods/pod7/4b1d\n"},
            {"proc/self/mountinfo",
             "742 739 0:36 /kubepods/pod7/4b1d /sys/fs/cgroup/memory ro - cgroup cgroup "
             "rw,memory\n"},
            {"sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"},
            {"sys/fs/cgroup/memory/memory.usage_in_bytes", "104857600\n"},
            {"sys/fs/cgroup/memory/memory.stat",
             "hierarchical_memory_limit 268435456\ntotal_inactive_file 4096\n"}});
  EXPECT_EQ(tree.memory().bytes, 268435456u - 104857600u + 4096u);
}

TEST(Limits, Version1NestedAndMixedWithVersion2) {
  // Each controller a hierarchy of its own; the unified one has none. Quota -1: none.
  const Tree tree(
      Files{{"proc/meminfo", kMachine},
            {"proc/self/cgroup",
             "9:name=systemd:/\n4:memory:/batch/job 17\n2:cpuacct:/\n1:cpu:/batch/job 17\n0::/\n"},
            {"proc/self/mountinfo",
             "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
             "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
             "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
             "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"},
            {"sys/fs/cgroup/cpu/batch/job 17/cpu.cfs_quota_us", "-1\n"},
            {"sys/fs/cgroup/cpu/batch/job 17/cpu.cfs_period_us", "100000\n"},
            {"sys/fs/cgroup/cpu/batch/cpu.cfs_quota_us", "100000\n"},
            {"sys/fs/cgroup/cpu/batch/cpu.cfs_period_us", "100000\n"},
            {"sys/fs/cgroup/memory/batch/job 17/memory.limit_in_bytes", "8589934592\n"},
            {"sys/fs/cgroup/memory/batch/job 17/memory.usage_in_bytes", "1073741824\n"},
            {"sys/fs/cgroup/memory/batch/memory.limit_in_bytes", "6442450944\n"},
            {"sys/fs/cgroup/memory/batch/memory.usage_in_bytes", "5368709120\n"},
            {"sys/fs/cgroup/memory/batch/memory.stat", "total_inactive_file 0\n"},
            {"sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"}});
  EXPECT_EQ(tree.memory().bytes, 6442450944u - 5368709120u);
  EXPECT_EQ(tree.memory().within, " within the limit of cgroup /batch");
  EXPECT_EQ(tree.processors(), 1);
}

TEST(Limits, AGroupThatIsOutOfTheNamespaceLeavesWhatIsMounted) {
  const Tree tree(Files{{"proc/meminfo", kMachine},
                        {"proc/self/cgroup", "0::/../../system.slice\n"},
                        {"proc/self/mountinfo", kUnified},
                        {"sys/fs/cgroup/memory.max", "1048576\n"},
                        {"sys/fs/cgroup/memory.current", "2097152\n"}});
  EXPECT_EQ(tree.memory().bytes, 0u) << "more is used than allowed: a limit that was lowered";
}

TEST(Limits, FilesThatAreAbsentOrStrangeLimitNothing) {
  for (const char* const strange : {"", "max", "-1", "a lot", "99999999999999999999999"}) {
    const Tree tree(Files{{"proc/meminfo", kMachine},
                          {"proc/self/cgroup", "0::/x\nnonsense\n7:\n"},
                          {"proc/self/mountinfo", std::string("1 2\n- - -\n") + kUnified},
                          {"sys/fs/cgroup/x/memory.max", strange},
                          {"sys/fs/cgroup/x/cpu.max", strange}});
    EXPECT_EQ(tree.memory().bytes, kMachineBytes) << strange;
    EXPECT_EQ(tree.processors(), affinity()) << strange;
  }
}

TEST(Limits, MachineWithLessThanItsCgroupAllows) {
  const Tree tree(Files{{"proc/meminfo", "MemTotal: 2048 kB\nMemAvailable:   1024 kB\n"},
                        {"proc/self/cgroup", "0::/\n"},
                        {"proc/self/mountinfo", kUnified},
                        {"sys/fs/cgroup/memory.max", "1073741824\n"},
                        {"sys/fs/cgroup/memory.current", "0\n"}});
  EXPECT_EQ(tree.memory().bytes, kMiB);
  EXPECT_EQ(tree.memory().within, "");
}

/// In a process of its own: limits cannot be raised again.
int left_under_ulimit(int resource, const char* name) {
  // Sizes beyond what AddressSanitizer reserves of the address space.
  const uint64_t limit_bytes = uint64_t{1} << 46;
  const Tree tree(
      Files{{"proc/meminfo", "MemAvailable: 1125899906842624 kB\n"},
            {"proc/self/status", "VmPeak:\t 9 kB\nVmSize:\t 4096 kB\nVmData:\t 1024 kB\n"}});
  const rlimit limit{limit_bytes, limit_bytes};
  if (::setrlimit(static_cast<__rlimit_resource>(resource), &limit) != 0) return 1;
  const uint64_t taken = resource == RLIMIT_AS ? 4 * kMiB : kMiB;
  if (tree.memory().bytes != limit_bytes - taken) return 2;
  return tree.memory().within == std::string(" within ") + name ? 0 : 3;
}

TEST(LimitsDeathTest, UlimitsAreFollowed) {
  EXPECT_EXIT(
      std::_Exit(left_under_ulimit(RLIMIT_AS, "ulimit -v")), testing::ExitedWithCode(0), "");
  EXPECT_EXIT(
      std::_Exit(left_under_ulimit(RLIMIT_DATA, "ulimit -d")), testing::ExitedWithCode(0), "");
}

/// How many tasks were done by a pool of one thread for each processor, on one processor.
int64_t done_on_one_processor() {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(static_cast<size_t>(sched_getcpu()), &one);
  if (sched_setaffinity(0, sizeof one, &one) != 0) return -1;
  ThreadPool pool(0);
  if (pool.threads() != 1 || available_processors() != 1) return -2;
  std::atomic<int64_t> done{0};
  pool.parallel_for(100, [&](int64_t, int thread) { done += thread == 0 ? 1 : 1000; });
  return done;
}

TEST(LimitsDeathTest, OneProcessorMeansOneThread) {
  EXPECT_EXIT(std::_Exit(done_on_one_processor() == 100 ? 0 : 1), testing::ExitedWithCode(0), "");
}

#ifndef FERRY_ADDRESS_SANITIZER  // it needs more address space than such a limit leaves
/// A pool of more threads than the address space has stacks for.
int crowded_pool() {
  const rlimit limit{512 * kMiB, 512 * kMiB};
  if (::setrlimit(RLIMIT_AS, &limit) != 0) return 1;
  ThreadPool pool(512);
  if (pool.threads() >= 512) return 2;
  std::atomic<int> done{0};
  pool.parallel_for(1000, [&](int64_t, int) { ++done; });
  return done == 1000 ? 0 : 3;
}

TEST(LimitsDeathTest, APoolWorksWithTheThreadsThatThereAre) {
  EXPECT_EXIT(std::_Exit(crowded_pool()), testing::ExitedWithCode(0), "");
}
#endif

}  // namespace
}  // namespace ferry
