// Days that are, and texts that are none.
#include "base/calendar.h"

#include <gtest/gtest.h>

namespace ferry {
namespace {

TEST(Calendar, DaysAreRead) {
  EXPECT_EQ(noon_unix_ms("1970-01-01"), 43'200'000);
  EXPECT_EQ(noon_unix_ms("2026-11-30"), 1'796'040'000'000);  // date -u -d '2026-11-30 12:00' +%s
  EXPECT_EQ(noon_unix_ms("2024-02-29"), 1'709'208'000'000);
  for (const char* none : {"",
                           "2026",
                           "2023-02-29",
                           "2026-13-01",
                           "2026-00-01",
                           "2026-1-01",
                           "2026-11-3x",
                           "+026-11-30",
                           "2026-11-30 "})
    EXPECT_FALSE(noon_unix_ms(none)) << none;
}

}  // namespace
}  // namespace ferry
