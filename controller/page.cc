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

const PageFile* page_file(std::string_view path) {
  static const std::array<PageFile, 5> files = {{
      {"/", "text/html; charset=utf-8", {kPageIndex, kPageIndexSize}},
      {"/index.html", "text/html; charset=utf-8", {kPageIndex, kPageIndexSize}},
      {"/page.css", "text/css; charset=utf-8", {kPageStyle, kPageStyleSize}},
      {"/graph.js", "text/javascript; charset=utf-8", {kPageGraph, kPageGraphSize}},
      {"/page.js", "text/javascript; charset=utf-8", {kPageScript, kPageScriptSize}},
  }};
  for (const PageFile& file : files) {
    if (file.path == path) return &file;
  }
  return nullptr;
}

}  // namespace guestagent::controller
