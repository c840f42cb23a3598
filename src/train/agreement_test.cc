// Ranks that are not about to train the same model, or not at all: all are told the same, of whom it is.
#include "train/agreement.h"

#include <gtest/gtest.h>

#include <thread>

#include "comm/socket_communicator.h"

namespace ferry {
namespace {

const Identity kSame{"binary0123456789", "settings", "data", "weights"};

/// What each of them comes to; the same text from all, or "they differ".
std::string agreed(const std::vector<Readiness>& say, bool* stop = nullptr) {
  auto all = comm::local_communicators(static_cast<int>(say.size()));
  EXPECT_TRUE(all);
  std::vector<std::string> texts(say.size());
  std::vector<std::thread> threads;
  for (size_t r = 0; r < say.size(); ++r)
    threads.emplace_back([&, r] {
      const Agreement a = agree(*(*all)[r], 1, say[r], 60);
      texts[r] = (a.all ? "go on" : a.all.error().message) + (a.stop ? ", stop" : "");
      if (r == 0 && stop != nullptr) *stop = a.stop;
    });
  for (std::thread& t : threads) t.join();
  for (const std::string& t : texts)
    if (t != texts[0]) return "they differ: " + t + " / " + texts[0];
  return texts[0];
}

TEST(Agreement, OfTheSame) {
  EXPECT_EQ(agreed({{.identity = kSame}, {.identity = kSame}, {.identity = kSame}}), "go on");
  EXPECT_EQ(agreed({{}, {}}), "go on");
}

TEST(Agreement, OneThatDiffersIsRefusedByName) {
  const struct {
    const char* name;
    std::string Identity::*value;
  } fields[] = {{"binary", &Identity::binary},
                {"settings", &Identity::settings},
                {"data", &Identity::data},
                {"weights", &Identity::weights}};
  for (const auto& field : fields) {
    Identity other = kSame;
    other.*field.value = "another";
    const std::string said =
        agreed({{.identity = kSame}, {.identity = kSame}, {.identity = other}});
    EXPECT_EQ(
        said.find(std::string("rank 2 has other ") + field.name + " than rank 0 (another there"),
        0u)
        << said;
  }
}

TEST(Agreement, OneThatCannotGoOnIsHeard) {
  const Result<void> broken = fail(Code::kNotFound, "data/manifest.json: is not there");
  EXPECT_EQ(agreed({{.identity = kSame}, {.prepared = broken}}),
            "rank 1: data/manifest.json: is not there");
  EXPECT_EQ(agreed({{.prepared = broken}, {.prepared = broken}}),
            "data/manifest.json: is not there");
}

TEST(Agreement, OneThatIsToStopStopsAll) {
  EXPECT_EQ(agreed({{.identity = kSame}, {.stop = true}}), "go on, stop");
}

}  // namespace
}  // namespace ferry
