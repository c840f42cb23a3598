// Defects that can be planted one by one (FERRY_NVIDIA_SIM_DEFECT): what a GPU, its driver or its
// compiler may get wrong. Each is carried out where the right thing is: in single instructions by
// exec/faulty.cc, in the order of warps and blocks by exec/warp.cc, in copies, streams and memory by
// the driver.
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace nvidia_sim {

// name, what it spoils ("any": whatever kernel meets it; else a part of the runtime), what it does
#define NVIDIA_SIM_DEFECTS(DEFECT)                                                                 \
  DEFECT(fma_rounds_twice, "any", "fma rounds the product before it adds")                         \
  DEFECT(fma_truncates, "any", "fma rounds toward zero")                                           \
  DEFECT(fma_deep_truncates, "any", "fma rounds toward zero after 50,000 instructions of a warp")  \
  DEFECT(fma_swaps_lanes, "any", "fma gives lanes 0 and 1 each other's result")                    \
  DEFECT(add_truncates, "any", "add rounds toward zero")                                           \
  DEFECT(mul_short, "any", "mul loses the last two bits of its result")                            \
  DEFECT(subnormals_kept, "any", "add, mul and fma do not flush subnormal numbers")                \
  DEFECT(infinity_clamped, "any", "add, mul and fma answer the largest number for infinity")       \
  DEFECT(nan_lost, "any", "add, mul and fma answer 0 for NaN")                                     \
  DEFECT(div_approximate, "any", "div multiplies by a reciprocal of 12 bits")                      \
  DEFECT(rcp_approximate, "any", "rcp has 12 bits")                                                \
  DEFECT(sqrt_approximate, "any", "sqrt has 12 bits")                                              \
  DEFECT(f64_as_f32, "any", "add and mul in f64 round to f32")                                     \
  DEFECT(f64_root_as_f32, "any", "sqrt and rcp in f64 round to f32")                               \
  DEFECT(bf16_truncates, "any", "conversion to bf16 cuts bits off")                                \
  DEFECT(bf16_half_up, "any", "conversion to bf16 rounds halves away from zero")                   \
  DEFECT(bf16_nan_infinite, "any", "conversion to bf16 makes infinity of NaN")                     \
  DEFECT(to_whole_truncates, "any", "conversion to whole numbers cuts digits off")                 \
  DEFECT(compare_equal_holds, "any", "less and greater hold for equal numbers")                    \
  DEFECT(compare_nan_holds, "any", "less and greater hold for NaN")                                \
  DEFECT(select_lane_0, "any", "selp gives lane 0 the first operand always")                       \
  DEFECT(multiply_24_bits, "any", "mul.lo.s64 takes 24 bits of its operands")                      \
  DEFECT(divide_one_short, "any", "division of whole numbers without a rest is one too low")       \
  DEFECT(shuffle_lane_31, "any", "a shuffle leaves lane 31 what it had")                           \
  DEFECT(shuffle_within_halves, "any", "a shuffle does not cross the middle of a warp")            \
  DEFECT(absent_lanes_add, "any", "add writes the registers of lanes that are elsewhere, too")     \
  DEFECT(barrier_ignored, "any", "bar.sync waits for nobody")                                      \
  DEFECT(barrier_last_warp, "any", "the last of a block's warps does not wait at bar.sync")        \
  DEFECT(shared_of_two_blocks, "any", "two blocks at a time have one shared memory")               \
  DEFECT(shared_bank_conflict, "any", "of two stores to one bank of shared memory one is lost")    \
  DEFECT(vector_load_repeats, "any", "a load of four numbers repeats the first two")               \
  DEFECT(mma_swaps_lanes, "any", "mma takes the first register of a from lanes 0 and 1 crosswise") \
  DEFECT(mma_half_lost, "any", "mma leaves out the last eight of sixteen products")                \
  DEFECT(mma_few_bits, "any", "mma keeps 13 bits of what it adds")                                 \
  DEFECT(mma_rounds, "any", "mma rounds to nearest instead of cutting")                            \
  DEFECT(ldmatrix_untransposed, "any", "ldmatrix does not transpose")                              \
  DEFECT(ldmatrix_row_repeats, "any", "ldmatrix gives the last row of a matrix the one before it") \
  DEFECT(async_copy_short, "any", "cp.async brings half of its bytes, and zeros")                  \
  DEFECT(async_wait_early, "any", "cp.async.wait_group waits for one group less")                  \
  DEFECT(half_store_clears, "any", "a store of 16 bits clears the other half of its word")         \
  DEFECT(store_lost, "any", "one store of a warp in 2,000 loses its first lane's number")          \
  DEFECT(load_bit_flip, "any", "one load of a warp in 20,000 has a bit of its first lane flipped") \
  DEFECT(last_block_lost, "any", "the last of several blocks is not run")                          \
  DEFECT(last_block_lost_of_many, "any", "the last of more than 256 blocks is not run")            \
  DEFECT(last_block_late, "any", "the last of several blocks runs after the stream's next task")   \
  DEFECT(block_twice, "any", "the middle one of several blocks is run twice")                      \
  DEFECT(launch_dropped, "any", "one launch in 300 is not run")                                    \
  DEFECT(launch_twice, "any", "one launch in 50 is run twice")                                     \
  DEFECT(launch_old_arguments, "any", "one launch in 100 has the arguments of the one before it")  \
  DEFECT(first_launch_short, "any", "the first launch of each kernel leaves out the first block")  \
  DEFECT(launch_overtakes, "any", "one launch in 60 overtakes the task before it")                 \
  DEFECT(copy_in_short, "Memcpy", "of more than 64 KiB to the device whole 256 bytes arrive")      \
  DEFECT(copy_out_short, "Memcpy", "of more than 64 KiB from the device whole 256 bytes arrive")   \
  DEFECT(copy_within_words, "Memcpy", "copies within the device move whole words of 4 bytes")      \
  DEFECT(copy_in_late, "Memcpy", "copies to the device land after the stream's next task")         \
  DEFECT(copy_out_late, "Memcpy", "copies from the device land after the stream's next task")      \
  DEFECT(copy_in_repeats, "Memcpy", "one copy to the device in 40 brings the one before it again") \
  DEFECT(fill_words, "Memset", "fills write whole words of 4 bytes")                               \
  DEFECT(fill_late, "Memset", "fills land after the stream's next task")                           \
  DEFECT(event_early, "Stream", "an event is done before the stream came to it")                   \
  DEFECT(query_early, "Stream", "a stream says that it is done while its last task runs")          \
  DEFECT(pool_hands_out_twice, "Memory", "one allocation in 10 is memory that somebody has")       \
  DEFECT(pool_frees_at_once, "Memory", "memory is freed before the stream comes to it")

enum class Defect : size_t {
#define NVIDIA_SIM_DEFECT_NAME(name, op, what) name,
  NVIDIA_SIM_DEFECTS(NVIDIA_SIM_DEFECT_NAME)
#undef NVIDIA_SIM_DEFECT_NAME
      kCount
};

/// What is planted: nothing, unless the settings say so.
class Planted {
 public:
  bool operator[](Defect d) const { return bits_[static_cast<size_t>(d)]; }
  bool any() const { return bits_.any(); }
  /// False for a name that no defect has.
  bool add(std::string_view name);

 private:
  std::bitset<static_cast<size_t>(Defect::kCount)> bits_;
};

/// A line for each: "name<TAB>op<TAB>what it does".
const std::string& list_of_defects();

/// Counts for defects that come now and then: true at every `nth` call, for the first time by the seed.
class NowAndThen {
 public:
  bool operator()(uint64_t nth, uint64_t seed) { return (++count_ + seed) % nth == 0; }

 private:
  uint64_t count_ = 0;
};

}  // namespace nvidia_sim
