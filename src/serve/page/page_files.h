// The chat page's files, which the program carries within itself: the page needs no folder and no network.
#pragma once

#include <span>
#include <string_view>

namespace ferry::serve {

struct PageFile {
  std::string_view path;  // of a request: "/", "/page/app.js"
  std::string_view content_type;
  std::string_view bytes;
  std::string_view gzip;  // the same, compressed; empty where that gains nothing
  std::string_view etag;  // of both forms, in quotes, therefore a weak one
};

/// All of them, by path. cmake/page.cmake lists what they are made of.
std::span<const PageFile> page_files();

/// The file at a path without its query, or null.
const PageFile* page_file(std::string_view path);

/// The header Content-Security-Policy of each of them. What a model writes may say anything: whatever
/// got past the page's own cleaning could neither run nor send anything elsewhere.
inline constexpr std::string_view kPageSecurityPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types dompurify";

}  // namespace ferry::serve
