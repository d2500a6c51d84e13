// The page: files of controller/page/, part of the binary.
#pragma once

#include <string>
#include <string_view>

namespace guestagent::controller {

struct PageFile {
  std::string path, content_type;
  std::string_view content;
};

// nullptr when the page has no such file. "/" is the page itself.
const PageFile* page_file(std::string_view path);

// Nothing from elsewhere, nothing inline.
inline constexpr const char* kPagePolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'";

}  // namespace guestagent::controller
