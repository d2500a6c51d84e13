#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/s3/sigv4.h"
#include "storage/s3/xml.h"

namespace guestagent {
namespace {

using testing::HasSubstr;

// The worked examples of Amazon's documentation, "Signature Calculations for the Authorization Header".
class SigV4 : public testing::Test {
 protected:
  const S3Credentials credentials_{"AKIAIOSFODNN7EXAMPLE", Secret("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
                                   "us-east-1"};
  const WallTime now_ = parse_utc("2013-05-24T00:00:00Z");
  const std::string empty_ = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

  std::string authorization(const S3Request& request) {
    const HttpHeaders headers = sign_s3(request, credentials_, now_);
    EXPECT_EQ(headers.at(0), std::pair(std::string("x-amz-date"), std::string("20130524T000000Z")));
    return headers.at(2).second;
  }
};

TEST_F(SigV4, SignsTheDocumentedExamples) {
  const std::string host = "examplebucket.s3.amazonaws.com";
  EXPECT_THAT(authorization(
                  {.method = "GET", .host = host, .path = "/", .query = {{"lifecycle", ""}}, .payload_sha256 = empty_}),
              HasSubstr("Signature=fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"));
  EXPECT_THAT(authorization({.method = "GET",
                             .host = host,
                             .path = "/",
                             .query = {{"prefix", "J"}, {"max-keys", "2"}},
                             .payload_sha256 = empty_}),
              HasSubstr("Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"));
}

TEST_F(SigV4, NamesTheKeyAndHidesTheSecret) {
  const std::string text = authorization({.method = "GET", .host = "h", .path = "/", .payload_sha256 = empty_});
  EXPECT_THAT(text, HasSubstr("Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request"));
  EXPECT_THAT(text, testing::Not(HasSubstr("wJalr")));
}

TEST_F(SigV4, QueriesAreSortedAndEncoded) {
  EXPECT_EQ(canonical_query({.query = {{"prefix", "a b/c"}, {"list-type", "2"}}}), "list-type=2&prefix=a%20b%2Fc");
  EXPECT_EQ(canonical_query({}), "");
}

TEST(Xml, ReadsElementsTextAndEntities) {
  const auto xml = parse_xml(
      "<?xml version=\"1.0\"?>\n<!-- x --><r xmlns='urn:a>b'><a>1 "
      "&lt;&#65;&#x20AC;&amp;</a><ns:b/><a>2</a><c><d>deep</d></c></r>\n");
  ASSERT_TRUE(xml);
  EXPECT_EQ(xml->name, "r");
  EXPECT_EQ(xml->child_text("a"), "1 <A\xE2\x82\xAC&");
  EXPECT_EQ(xml->children.size(), 4U);
  EXPECT_NE(xml->child("b"), nullptr);
  EXPECT_EQ(xml->child("c")->child_text("d"), "deep");
  EXPECT_EQ(xml->child_text("none"), "");
}

TEST(Xml, RefusesWhatIsNotWellFormed) {
  std::string deep;
  for (int i = 0; i < 20; ++i) deep += "<a>";
  for (int i = 0; i < 20; ++i) deep += "</a>";
  for (const std::string& bad :
       {std::string(), std::string("text"), std::string("<a>"), std::string("<a></b>"), std::string("<a/><b/>"),
        std::string("<a>&bad;</a>"), std::string("<a>&#0;</a>"), std::string("<a>&#xD800;</a>"),
        std::string("<a>&amp</a>"), std::string("<a"), std::string("<>"), std::string("< a></ a>"),
        std::string("<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>"), std::string("<a><!ENTITY x></a>"),
        std::string("<a b='></a>"), deep}) {
    EXPECT_FALSE(parse_xml(bad)) << bad;
  }
}

}  // namespace
}  // namespace guestagent
