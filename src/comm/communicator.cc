#include "comm/communicator.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace ferry::comm {

std::string to_string(const Tag& tag) {
  const auto of_step = [&](const char* what) {
    return fmt::format("{} of step {}", what, tag.step);
  };
  switch (tag.purpose) {
    case Purpose::kAgreement: return "what it begins with";
    case Purpose::kStop: return of_step("whether to go on, at the end");
    case Purpose::kNumbers: return of_step("losses");
    case Purpose::kGradients: return of_step("gradients");
    case Purpose::kSquares: return of_step("squares of gradients");
    case Purpose::kWeights: return of_step("weights");
    case Purpose::kState: return of_step("optimizer state");
    case Purpose::kHeldOut: return of_step("held-out loss");
    case Purpose::kSums: return of_step("sums of gradients");
    case Purpose::kFigures: return "what was measured at the beginning";
    case Purpose::kEnd: return "the end of the run";
    case Purpose::kStanding: return "where it stands";
    case Purpose::kHeard: return of_step("what was heard");
    case Purpose::kHashes: return fmt::format("hashes of what it holds after step {}", tag.step);
    case Purpose::kModel: return "what model it is";
    case Purpose::kGiven: return of_step("weights for who lacks them");
    case Purpose::kGivenState: return of_step("optimizer state for a successor");
    case Purpose::kCarried: return of_step("what a run carries");
    case Purpose::kRewind: return of_step("where to go back to from a loss spike, at the end");
  }
  return fmt::format("purpose {} of step {}", static_cast<uint32_t>(tag.purpose), tag.step);
}

LinkError::LinkError(int rank, int peer, bool gone, const std::string& what)
    : DeviceError(fmt::format("rank {}", rank), 0, what), peer_(peer), gone_(gone) {}

std::vector<std::vector<std::byte>> all_gather(Communicator& ranks,
                                               const Tag& tag,
                                               std::span<const std::byte> mine,
                                               std::span<const size_t> sizes,
                                               double patience_s) {
  check(std::ssize(sizes) == ranks.ranks(), "all_gather: {} sizes", sizes.size());
  std::vector<std::vector<std::byte>> all(sizes.size());
  for (int r = 0; r < ranks.ranks(); ++r) {
    std::vector<std::byte>& theirs = all[static_cast<size_t>(r)];
    if (r == ranks.rank()) {
      check(mine.size() == sizes[static_cast<size_t>(r)], "all_gather: {} bytes", mine.size());
      theirs.assign(mine.begin(), mine.end());
      continue;
    }
    theirs.resize(sizes[static_cast<size_t>(r)]);
    ranks.send(r, tag, mine);
    ranks.receive(r, tag, theirs);
  }
  ranks.finish(patience_s);
  return all;
}

std::vector<std::string> all_gather_texts(Communicator& ranks,
                                          const Tag& tag,
                                          const std::string& mine,
                                          double patience_s,
                                          uint64_t bytes_max) {
  check(mine.size() <= bytes_max, "all_gather_texts: {} bytes", mine.size());
  const std::vector<uint64_t> length = {mine.size()};
  const std::vector<size_t> one(static_cast<size_t>(ranks.ranks()), sizeof(uint64_t));
  std::vector<size_t> sizes;
  for (const std::vector<std::byte>& theirs :
       all_gather(ranks, tag, bytes_of(length), one, patience_s)) {
    uint64_t size = 0;
    std::memcpy(&size, theirs.data(), sizeof size);
    if (size > bytes_max)
      throw LinkError(
          ranks.rank(),
          static_cast<int>(sizes.size()),
          false,
          fmt::format(
              "rank {} has {} bytes to say; at most {} are heard", sizes.size(), size, bytes_max));
    sizes.push_back(size);
  }
  std::vector<std::string> texts;
  for (const std::vector<std::byte>& theirs : all_gather(
           ranks, tag, std::as_bytes(std::span(mine.data(), mine.size())), sizes, patience_s))
    texts.emplace_back(reinterpret_cast<const char*>(theirs.data()), theirs.size());
  return texts;
}

std::string hand_text(Communicator& ranks,
                      const Tag& tag,
                      int from,
                      const std::vector<bool>& to,
                      const std::string& mine,
                      double patience_s,
                      uint64_t bytes_max) {
  const int me = ranks.rank();
  const bool hears = to[static_cast<size_t>(me)] && me != from;
  std::vector<uint64_t> size = {mine.size()};
  std::string text = mine;
  const auto round = [&](auto bytes) {
    if (hears) ranks.receive(from, tag, bytes);
    for (int r = 0; me == from && r < ranks.ranks(); ++r)
      if (r != me && to[static_cast<size_t>(r)]) ranks.send(r, tag, bytes);
    ranks.finish(patience_s);
  };
  round(bytes_of(size));
  if (size[0] > bytes_max)
    throw LinkError(
        me,
        from,
        false,
        fmt::format("rank {} has {} bytes to say; at most {} are heard", from, size[0], bytes_max));
  if (hears) text.resize(size[0]);
  round(std::as_writable_bytes(std::span(text.data(), text.size())));
  return hears ? text : std::string();
}

bool any_of(Communicator& ranks, const Tag& tag, bool mine, double patience_s) {
  const std::vector<uint8_t> byte = {mine ? uint8_t{1} : uint8_t{0}};
  const std::vector<size_t> sizes(static_cast<size_t>(ranks.ranks()), 1);
  const auto all = all_gather(ranks, tag, bytes_of(byte), sizes, patience_s);
  return std::any_of(all.begin(), all.end(), [](const auto& b) { return b[0] != std::byte{0}; });
}

}  // namespace ferry::comm
