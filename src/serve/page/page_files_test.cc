#include "serve/page/page_files.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace ferry::serve {
namespace {

TEST(PageFiles, AreFoundByTheirPath) {
  ASSERT_GT(page_files().size(), 10u);
  std::set<std::string_view> etags;
  for (const PageFile& file : page_files()) {
    EXPECT_EQ(page_file(file.path), &file) << file.path;
    EXPECT_FALSE(file.bytes.empty()) << file.path;
    EXPECT_TRUE(file.etag.starts_with("W/\"") && file.etag.ends_with('"')) << file.etag;
    EXPECT_TRUE(etags.insert(file.etag).second) << file.path << ": the bytes of another";
  }
  EXPECT_EQ(page_file("/page/"), nullptr);
  EXPECT_EQ(page_file("/page/../page/app.js"), nullptr);
  EXPECT_EQ(page_file(""), nullptr);
}

TEST(PageFiles, AreWhatTheyAreSaidToBe) {
  const PageFile* index = page_file("/");
  ASSERT_NE(index, nullptr);
  EXPECT_EQ(index->content_type, "text/html; charset=utf-8");
  EXPECT_TRUE(index->bytes.starts_with("<!doctype html>"));
  EXPECT_TRUE(index->bytes.ends_with("</html>\n"));
  EXPECT_TRUE(index->gzip.starts_with("\x1f\x8b"));
  EXPECT_LT(index->gzip.size(), index->bytes.size());
  const PageFile* font = page_file("/page/lib/fonts/KaTeX_Main-Regular.woff2");
  ASSERT_NE(font, nullptr);
  EXPECT_EQ(font->content_type, "font/woff2");
  EXPECT_TRUE(font->bytes.starts_with("wOF2"));
  EXPECT_TRUE(font->gzip.empty());  // is compressed
}

/// The policy forbids what stands in the page itself: then nothing of it would work.
TEST(PageFiles, KeepToTheirPolicy) {
  const std::string_view index = page_file("/")->bytes;
  for (size_t at = index.find("<script"); at != std::string_view::npos;
       at = index.find("<script", at + 1))
    EXPECT_EQ(index.substr(at, index.find('>', at) - at + 10).find("></script>") !=
                  std::string_view::npos,
              true)
        << "a script that stands in the page at " << at;
  for (const char* inline_part : {"<style", " style=", " onclick=", "javascript:", "http"})
    EXPECT_EQ(index.find(inline_part), std::string_view::npos) << inline_part;
}

/// What the page names, it has.
TEST(PageFiles, NameNothingThatIsMissing) {
  for (const PageFile& file : page_files()) {
    const bool page = file.path == "/";
    if (!page && (file.path.starts_with("/page/lib/") || !file.path.ends_with(".js"))) continue;
    for (const std::string mark : {"src=\"", "href=\"", "from \"", "import \""})
      for (size_t at = file.bytes.find(mark); at != std::string_view::npos;
           at = file.bytes.find(mark, at + 1)) {
        const size_t begin = at + mark.size();
        std::string name(file.bytes.substr(begin, file.bytes.find('"', begin) - begin));
        if (name.starts_with("./")) name = "page/" + name.substr(2);
        if (!name.starts_with("page/")) continue;
        EXPECT_NE(page_file("/" + name), nullptr) << file.path << " names " << name;
      }
  }
}

}  // namespace
}  // namespace ferry::serve
