#include "controller/page.h"

#include <array>

// Made from controller/page/ by cmake/embed.cmake.
extern const char kPageIndex[];
extern const unsigned long kPageIndexSize;
extern const char kPageStyle[];
extern const unsigned long kPageStyleSize;
extern const char kPageGraph[];
extern const unsigned long kPageGraphSize;
extern const char kPageScript[];
extern const unsigned long kPageScriptSize;

namespace guestagent::controller {

namespace {

// A source and its two replicas. Browsers ask for one unasked, and would show a refusal.
constexpr std::string_view kIcon =
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><path d='M4 8 12 3M4 8l8 5' stroke='#567'/><circle "
    "cx='4' cy='8' r='3' "
    "fill='#2a6'/><circle cx='12' cy='3' r='3' fill='#38c'/><circle cx='12' cy='13' r='3' fill='#38c'/></svg>";

}  // namespace

const PageFile* page_file(std::string_view path) {
  static const std::array<PageFile, 6> files = {{
      {"/", "text/html; charset=utf-8", {kPageIndex, kPageIndexSize}},
      {"/index.html", "text/html; charset=utf-8", {kPageIndex, kPageIndexSize}},
      {"/page.css", "text/css; charset=utf-8", {kPageStyle, kPageStyleSize}},
      {"/graph.js", "text/javascript; charset=utf-8", {kPageGraph, kPageGraphSize}},
      {"/favicon.ico", "image/svg+xml", kIcon},
      {"/page.js", "text/javascript; charset=utf-8", {kPageScript, kPageScriptSize}},
  }};
  for (const PageFile& file : files) {
    if (file.path == path) return &file;
  }
  return nullptr;
}

}  // namespace guestagent::controller
