// From files to shares: what is read, what is refused, and that each number that is given is one that counts.
#include "cluster/projection.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "cluster/goodput_plot.h"

namespace ferry::cluster {
namespace {

using Json = nlohmann::json;

Json measured_json() {
  const Json fault = {{"faults", 4}, {"detect_s", 0.25}, {"restart_s", 0.75}, {"slowest_s", 2}};
  Json j = {{"format", 1},
            {"command", "a command"},
            {"machine", "a machine"},
            {"date", "a day"},
            {"load", "no load"},
            {"settings", {"--a.b=1"}},
            {"ranks", 4},
            {"step_s", 0.05},
            {"checks_share", 0.01},
            {"save_s", 0.5},
            {"process", fault},
            {"silent", fault},
            {"pair", fault}};
  j["silent"]["detect_s"] = 4.25;
  j["silent"]["slowest_s"] = 9;
  j["pair"]["slowest_s"] = 3;
  return j;
}

Json published_json() {
  const Result<std::string> text =
      read_file(std::string(FERRY_SOURCE_DIR) + "/configs/goodput.json");
  EXPECT_TRUE(text) << text.error().message;
  return Json::parse(*text);
}

std::string written(const Json& j) {
  const std::string path = join_path(testing::TempDir(), "goodput_input.json");
  EXPECT_TRUE(write_file_atomic(path, j.dump()));
  return path;
}

Measured measured() {
  Result<Measured> m = read_measured(written(measured_json()));
  EXPECT_TRUE(m) << m.error().message;
  return *m;
}

Published published() {
  Result<Published> p = read_published(written(published_json()));
  EXPECT_TRUE(p) << p.error().message;
  return *p;
}

TEST(Projection, TheRatesAreThosePublished) {
  const Published p = published();
  ASSERT_GE(p.rates.size(), 4u);
  EXPECT_EQ(p.rates[0].name, "Llama 3");
  EXPECT_NEAR(p.rates[0].mtbf_s(16384) / 3600, 3.1, 0.05);  // "about one every three hours"
  EXPECT_NEAR(p.rates[0].mtbf_s(10000) / 3600, 5.1, 0.05);  // the design's figure
  EXPECT_NEAR(p.rates[1].mtbf_s(16384) / 3600, 1.8, 0.01);  // as RSC-1's authors project it
  EXPECT_NEAR(p.rates[2].mtbf_s(1000) / 86400, 0.37, 0.01);
  EXPECT_NEAR(p.rates[3].mtbf_s(384) / 3600, 24, 1e-9);
  for (const FailureRate& r : p.rates) EXPECT_FALSE(r.source.empty()) << r.name;
  for (const std::string& why : p.why) EXPECT_FALSE(why.empty());
}

// By hand, for the first rate at 10,000 chips. A constant that is not used, a unit that is mistaken, a kind of fault
// that is taken for the other one changes it.
TEST(Projection, IsTheFormulaOfWhatWasRead) {
  const Measured m = measured();
  const Published p = published();
  const AtScale at = project(m, p, 10000);
  ASSERT_EQ(at.rates.size(), p.rates.size());
  ASSERT_EQ(at.recoveries.size(), p.recoveries.size());
  const double others = 10000.0 / 8 - 1;
  GoodputCase c{.faults_per_s = 419.0 * 10000 / (54.0 * 86400 * 16384),
                .step_s = 20,
                .kinds = {{63.0 / 419, 1 + 80.0 / 50}, {1 - 63.0 / 419, 5 + 640.0 / 50}},
                .together_at_once = 0.01,
                .together_later = 2 / others,
                .from_disk_s = 1 + 640.0 / 2,
                .checkpoint_s = 1800};
  EXPECT_NEAR(at.rates[0].usual.share, goodput_of(c).share, 1e-12);
  EXPECT_NEAR(at.rates[0].with_overhead, goodput_of(c).share * (1 - 0.01 - 0.5 / 1800), 1e-12);
  c.kinds = {{1, 9 + 640.0 / 50}};
  c.from_disk_s = 3 + 640.0 / 2;
  EXPECT_NEAR(at.rates[0].worst.share, goodput_of(c).share, 1e-12);
  EXPECT_NEAR(at_mtbf(m, p, at.rates[0].mtbf_s).share, at.rates[0].usual.share, 1e-12);
  // The design's figures for what others need a fault, apart from the half step that is lost with it.
  EXPECT_NEAR(1 - at.recoveries[1].share, 0.008 + 10 / at.rates[0].mtbf_s, 0.0003);
  EXPECT_NEAR(1 - at.recoveries[2].share, 0.010 + 10 / at.rates[0].mtbf_s, 0.0003);
}

TEST(Projection, MoreChipsMakeLessOfTheirTime) {
  const Measured m = measured();
  const Published p = published();
  std::vector<double> before(p.rates.size(), 1);
  for (double chips = 8; chips < 1e7; chips *= 2) {
    const AtScale at = project(m, p, chips);
    for (size_t r = 0; r < at.rates.size(); ++r) {
      EXPECT_LT(at.rates[r].usual.share, before[r]) << chips << " " << r;
      EXPECT_LE(at.rates[r].worst.share, at.rates[r].usual.share) << chips << " " << r;
      EXPECT_GE(at.rates[r].worst.share, 0);
      before[r] = at.rates[r].usual.share;
    }
  }
}

TEST(Projection, AnAssumptionIsGivenByName) {
  Published p = published();
  const std::string was = p.why[1];
  ASSERT_TRUE(assume(p, "step_s=6.5"));
  EXPECT_EQ(p.assumptions.step_s, 6.5);
  EXPECT_EQ(p.assumptions.checkpoint_s, 1800);
  EXPECT_NE(p.why[1], was) << "the file's reason was for another value";
  for (const char* wrong : {"step_s",
                            "step_s=",
                            "step_s=x",
                            "step_s=1x",
                            "step_s=0",
                            "step_s=nan",
                            "together_share=1.1",
                            "steps=1",
                            "=1",
                            ""}) {
    const Result<void> r = assume(p, wrong);
    ASSERT_FALSE(r) << wrong;
    EXPECT_EQ(r.error().code, Code::kInvalidInput);
  }
  EXPECT_EQ(p.assumptions.step_s, 6.5);
  EXPECT_NE(assume(p, "steps=1").error().message.find("together_share"), std::string::npos);
}

TEST(Projection, WhatIsNoMeasurementIsRefusedByItsField) {
  const auto refused = [](const Json& j, const std::string& field) {
    const Result<Measured> m = read_measured(written(j));
    ASSERT_FALSE(m) << field;
    EXPECT_NE(m.error().message.find(field), std::string::npos) << m.error().message;
  };
  const Json good = measured_json();
  for (const auto& [name, value] : good.items()) {
    Json j = good;
    j.erase(name);
    refused(j, name);
  }
  const auto with = [](const char* pointer, const Json& value) {
    Json j = measured_json();
    j[Json::json_pointer(pointer)] = value;
    return j;
  };
  refused(with("/format", 2), "format");
  refused(with("/step_s", 0), "step_s");
  refused(with("/checks_share", 1.5), "checks_share");
  refused(with("/process/faults", 0), "faults");
  refused(with("/process/slowest_s", 0.9), "slowest_s");
  refused(with("/more", 1), "more");
  refused(with("/pair/more", 1), "more");
  EXPECT_FALSE(read_measured(join_path(testing::TempDir(), "no such file")));
}

TEST(Projection, WhatIsNoPublishedFigureIsRefusedByItsField) {
  const auto refused = [](const char* pointer, const Json& value, const std::string& field) {
    Json j = published_json();
    j[Json::json_pointer(pointer)] = value;
    const Result<Published> p = read_published(written(j));
    ASSERT_FALSE(p) << pointer;
    EXPECT_NE(p.error().message.find(field), std::string::npos) << p.error().message;
  };
  refused("/rates", Json::array(), "rates");
  refused("/rates/0/chips", 0, "chips");
  refused("/rates/0/faults", -1, "faults");
  refused("/rates/0/of_processes", 420, "of_processes");
  refused("/rates/0/more", 1, "more");
  refused("/goodputs/0/mtbf_s", 1, "goodputs[0]");
  refused("/goodputs/0/share", 97, "share");
  refused("/recoveries/0/seconds", -1, "seconds");
  refused("/assumptions/step_s/value", 0, "value");
  refused("/assumptions/step_s/why", 3, "why");
  refused("/assumptions/more", Json::object(), "more");
}

TEST(GoodputPlot, HoldsEachLineAndEachOfOthersFigures) {
  const Published p = published();
  const std::string svg = goodput_svg(measured(), p, 64, 100000);
  EXPECT_EQ(svg, goodput_svg(measured(), p, 64, 100000));
  for (const FailureRate& r : p.rates)
    EXPECT_NE(svg.find("failures as of " + r.name), std::string::npos) << r.name;
  for (const PublishedGoodput& g : p.goodputs)
    EXPECT_EQ(svg.find(g.name + ": ") != std::string::npos, g.chips.has_value()) << g.name;
  EXPECT_NE(svg.find("published by others"), std::string::npos);
  EXPECT_NE(svg.find(">10,000<"), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
  // Where even the best is far below all of it.
  EXPECT_TRUE(goodput_svg(measured(), p, 1e7, 1e9).ends_with("</svg>\n"));
}

TEST(GoodputPlot, NumbersHaveCommas) {
  EXPECT_EQ(with_commas(1), "1");
  EXPECT_EQ(with_commas(999), "999");
  EXPECT_EQ(with_commas(1000), "1,000");
  EXPECT_EQ(with_commas(100000), "100,000");
  EXPECT_EQ(with_commas(12345678), "12,345,678");
}

}  // namespace
}  // namespace ferry::cluster
