#include "storage/http/etag.h"

#include <gtest/gtest.h>

namespace guestagent {
namespace {

TEST(Etag, IsItsTagWhateverTheForm) {
  for (const char* text : {"abc", "\"abc\"", "W/\"abc\"", "w/\"abc\"", "ABC", "\"aBc\""})
    EXPECT_EQ(plain_etag(text), "abc") << text;
  EXPECT_EQ(plain_etag(""), "");
  EXPECT_EQ(plain_etag("\""), "\"");
  EXPECT_EQ(plain_etag("\"\""), "");
  EXPECT_EQ(plain_etag("W/abc"), "w/abc");
  EXPECT_EQ(plain_etag("\"abc"), "\"abc");
}

TEST(Etag, IsAnMd5OrNot) {
  const std::string md5 = "900150983cd24fb0d6963f7d28e17f72";
  const auto told = [](const std::string& etag) {
    return etag_md5({.status = 200, .headers = {{"etag", etag}}, .body = {}});
  };
  for (const std::string& text :
       {md5, '"' + md5 + '"', "W/\"" + md5 + '"', std::string("900150983CD24FB0D6963F7D28E17F72")})
    EXPECT_EQ(told(text), md5) << text;
  for (const std::string& text :
       {std::string(), '"' + md5 + "-2\"", md5.substr(1), md5 + "0", "x" + md5.substr(1), "\"" + md5})
    EXPECT_EQ(told(text), std::nullopt) << text;
  EXPECT_EQ(etag_md5({}), std::nullopt);
}

}  // namespace
}  // namespace guestagent
