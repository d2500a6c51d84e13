#include "net/http_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "net/curl_failure.h"
#include "support/scripted_http.h"

namespace guestagent {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

HttpClientOptions options(Millis stall = Millis(400)) {
  HttpClientOptions out;
  out.connect_timeout = Millis(5000);
  out.stall = stall;
  return out;
}

PeerAnswer echo(const PeerRequest& request) {
  return {.headers = {{"X-Method", request.method}}, .body = request.body};
}

class HttpClientTest : public testing::Test {
 protected:
  HttpClientTest() : peer_(echo), client_(options()) {}
  HttpRequest request(std::string method, std::string path = "/x") {
    return {.what = "ask", .method = std::move(method), .url = peer_.url() + std::move(path)};
  }
  HttpError error_of(const HttpRequest& r, std::stop_token stop = {}) {
    try {
      client_.send(r, std::move(stop));
    } catch (const HttpError& e) {
      return e;
    }
    ADD_FAILURE() << "no error";
    return HttpError(Code::internal, "none", {}, false, {});
  }
  ScriptedHttp peer_;
  HttpClient client_;
};

TEST_F(HttpClientTest, SpeaksEveryMethodAndKeepsItsConnection) {
  const Buffer body = Buffer::from("hello");
  for (const char* method : {"GET", "PUT", "POST", "DELETE", "HEAD"}) {
    HttpRequest r = request(method);
    const bool sends = std::string_view(method).starts_with("P");
    r.body = sends ? &body : nullptr;
    const HttpResponse response = client_.send(r, {});
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.header("x-method"), method);
    EXPECT_EQ(response.body.text(), sends ? "hello" : "");
  }
  EXPECT_EQ(peer_.connections(), 1U);
}

TEST_F(HttpClientTest, ManyThreadsShareItsConnections) {
  std::vector<std::jthread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < 300; ++i) {
        const std::string text = std::to_string(t) + "/" + std::to_string(i);
        const Buffer body = Buffer::from(text);
        HttpRequest r = request("PUT", "/" + text);
        r.body = &body;
        EXPECT_EQ(client_.send(r, {}).body.text(), text);
      }
    });
  }
  threads.clear();
  EXPECT_LE(peer_.connections(), 8U);
}

TEST_F(HttpClientTest, AskForLeaveBeforeALargeBody) {
  Buffer body;
  body.append(as_bytes(std::string(2 << 20, 'x')));
  std::atomic<bool> asked{false};
  peer_.set_script([&](const PeerRequest& r) {
    asked = r.headers.contains("expect");
    return PeerPlan{};
  });
  HttpRequest r = request("PUT");
  r.body = &body;
  r.max_answer = 4 << 20;
  EXPECT_EQ(client_.send(r, {}).body.size(), body.size());
  EXPECT_TRUE(asked);
  const Buffer small = Buffer::from("x");
  r.body = &small;
  client_.send(r, {});
  EXPECT_FALSE(asked);
}

TEST_F(HttpClientTest, WhoGivesNoLeaveGetsTheBodyAnyway) {
  const Buffer body = Buffer::from(std::string(2 << 20, 'x'));
  for (const PeerFault fault : {PeerFault::no_expect, PeerFault::no_expect_late}) {
    HttpClient client(options(Millis(20000)));
    std::atomic<unsigned> asked{0}, sent{0};
    peer_.set_script([&](const PeerRequest& r) {
      ++sent;
      if (r.headers.contains("expect")) ++asked;
      return PeerPlan{.fault = fault};
    });
    HttpRequest r = request("PUT");
    r.body = &body;
    r.max_answer = 4 << 20;
    r.once = true;
    const HttpResponse response = client.send(r, {});
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.body.size(), body.size());
    EXPECT_EQ(asked, 1U);
    EXPECT_EQ(client.send(r, {}).status, 200);
    EXPECT_EQ(asked, 1U) << "it is not asked again";
    EXPECT_EQ(sent, 3U);
  }
}

TEST_F(HttpClientTest, A417ThatStaysIsAnAnswer) {
  const Buffer body = Buffer::from(std::string(2 << 20, 'x'));
  peer_.set_script([](const PeerRequest&) { return PeerPlan{.instead = PeerAnswer{.status = 417, .body = "no"}}; });
  HttpRequest r = request("PUT");
  r.body = &body;
  const HttpResponse response = client_.send(r, {});
  EXPECT_EQ(response.status, 417);
  EXPECT_EQ(response.body.text(), "no");
}

TEST_F(HttpClientTest, WhatIsStoredIsAskedForAsItIs) {
  std::string encoding;
  std::string coding = "gzip";
  peer_.set_script([&](const PeerRequest& r) {
    encoding = r.headers.at("accept-encoding");
    return PeerPlan{.instead = PeerAnswer{.headers = {{"Content-Encoding", coding}}, .body = "\x1f\x8b..."}};
  });
  const HttpError e = error_of(request("GET"));
  EXPECT_EQ(encoding, "identity");
  EXPECT_THAT(e.what(), HasSubstr(peer_.url() + ": answered with Content-Encoding: gzip"));
  EXPECT_THAT(e.hint(), HasSubstr("proxy"));
  for (const char* harmless : {"identity", "aws-chunked"}) {
    coding = harmless;
    EXPECT_EQ(client_.send(request("GET"), {}).status, 200);
  }
}

TEST(CurlFailure, SaysWhatHelps) {
  HttpHints hints;
  hints.ca = "set tls.ca_file";
  hints.ca_file = "tls.ca_file must be PEM";
  hints.certificate = "no certificates of clients";
  struct Row {
    CURLcode code;
    const char* detail;
    const char* hint;
    bool retryable;
  };
  for (const Row& row : {
           Row{CURLE_PEER_FAILED_VERIFICATION, "SSL certificate problem: certificate has expired", "renew it", false},
           Row{CURLE_PEER_FAILED_VERIFICATION, "SSL certificate problem: certificate is not yet valid", "clock", false},
           Row{CURLE_PEER_FAILED_VERIFICATION,
               "SSL: no alternative certificate subject name matches target host name 'swift'", "name", false},
           Row{CURLE_PEER_FAILED_VERIFICATION, "SSL: certificate subject name 'a' does not match target host name 'b'",
               "name", false},
           Row{CURLE_PEER_FAILED_VERIFICATION, "SSL certificate problem: self-signed certificate", "tls.ca_file",
               false},
           Row{CURLE_PEER_FAILED_VERIFICATION, "SSL certificate problem: unable to get local issuer certificate",
               "tls.ca_file", false},
           Row{CURLE_PEER_FAILED_VERIFICATION, "SSL certificate problem: EE certificate key too weak", "stronger",
               false},
           Row{CURLE_SSL_CACERT_BADFILE, "error setting certificate file: /x", "PEM", false},
           Row{CURLE_SSL_CONNECT_ERROR, "OpenSSL/3.0.2: error:0A00010B:SSL routines::wrong version number", "http://",
               false},
           Row{CURLE_SSL_CONNECT_ERROR, "error:0A000412:SSL routines::sslv3 alert bad certificate", "clients", false},
           Row{CURLE_RECV_ERROR, "error:0A00045C:SSL routines::tlsv13 alert certificate required", "clients", false},
           Row{CURLE_SSL_CONNECT_ERROR, "OpenSSL SSL_connect: Connection reset by peer", "TLS 1.2", true},
           Row{CURLE_UNSUPPORTED_PROTOCOL, "Received HTTP/0.9 when not allowed", "https://", true},
       }) {
    const CurlFailure failure = describe_failure(row.code, 0, true, row.detail, Millis(1000), hints);
    EXPECT_THAT(failure.hint, HasSubstr(row.hint)) << row.detail;
    EXPECT_EQ(failure.retryable, row.retryable) << row.detail;
    EXPECT_THAT(failure.why, HasSubstr(row.detail));
  }
}

TEST_F(HttpClientTest, ARedirectIsAnAnswer) {
  peer_.set_script([&](const PeerRequest&) {
    return PeerPlan{.instead = PeerAnswer{.status = 302, .headers = {{"Location", peer_.url() + "/elsewhere"}}}};
  });
  HttpRequest r = request("GET");
  r.headers = {{"X-Auth-Token", "secret"}};
  EXPECT_EQ(client_.send(r, {}).status, 302);
  EXPECT_THAT(peer_.seen(), ElementsAre("GET /x"));
}

TEST_F(HttpClientTest, OnlyHttpIsSpoken) {
  for (const char* url : {"file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/x", "not a url"}) {
    HttpRequest r = request("GET");
    r.url = url;
    error_of(r);
  }
  EXPECT_TRUE(peer_.seen().empty());
}

TEST_F(HttpClientTest, HeadersCannotBeInjected) {
  HttpRequest r = request("GET");
  r.headers = {{"X-Auth-Token", "a\r\nX-Evil: b"}};
  EXPECT_THROW(client_.send(r, {}), Error);
  EXPECT_TRUE(peer_.seen().empty());
}

TEST_F(HttpClientTest, AnAnswerHasALimit) {
  HttpRequest r = request("PUT");
  const Buffer body = Buffer::from(std::string(1000, 'x'));
  r.body = &body;
  r.max_answer = 999;
  const HttpError e = error_of(r);
  EXPECT_EQ(e.code(), Code::resource_exhausted);
  EXPECT_FALSE(e.retryable());
  r.max_answer = 1000;
  EXPECT_EQ(client_.send(r, {}).body.size(), 1000U);
}

TEST_F(HttpClientTest, AnErrorsBodyIsCutNotRefused) {
  peer_.set_script([&](const PeerRequest&) {
    return PeerPlan{.instead = PeerAnswer{.status = 503, .body = std::string(10 << 20, 'e')}};
  });
  HttpRequest r = request("GET");
  r.max_answer = 10;
  HttpClient patient(options(Millis(20000)));  // much to send, on a machine that may be busy
  const HttpResponse response = patient.send(r, {});
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(response.body.size(), 64U << 10);
}

TEST_F(HttpClientTest, SilenceIsAStall) {
  peer_.set_script([](const PeerRequest&) { return PeerPlan{.fault = PeerFault::stall}; });
  const HttpError e = error_of(request("GET"));
  EXPECT_TRUE(e.retryable());
  EXPECT_EQ(e.brief(), "stalled 400 ms");
}

TEST_F(HttpClientTest, AWaitingRequestStopsAtOnce) {
  HttpClient patient(options(Millis(600000)));
  peer_.set_script([](const PeerRequest&) { return PeerPlan{.fault = PeerFault::stall}; });
  std::stop_source source;
  std::jthread stopper([&] {
    while (peer_.seen().empty()) std::this_thread::sleep_for(Millis(1));
    source.request_stop();
  });
  try {
    patient.send(request("GET"), source.get_token());
    FAIL();
  } catch (const HttpError& e) {
    EXPECT_EQ(e.code(), Code::cancelled);
  }
}

TEST_F(HttpClientTest, AKeptConnectionThatDiedIsReplaced) {
  client_.send(request("GET"), {});
  std::atomic<int> left{1};
  peer_.set_script(
      [&](const PeerRequest&) { return PeerPlan{.fault = left-- > 0 ? PeerFault::close : PeerFault::none}; });
  const Buffer body = Buffer::from("sent again");
  HttpRequest r = request("PUT");
  r.body = &body;
  EXPECT_EQ(client_.send(r, {}).body.text(), "sent again");
  left = 1;
  r.once = true;
  EXPECT_EQ(error_of(r).brief(), "reset");
  EXPECT_EQ(left, 0);
}

TEST_F(HttpClientTest, ARefusalBeforeTheBodyWasReadIsHeard) {
  Buffer body;
  body.append(as_bytes(std::string(900 << 10, 'x')));
  peer_.set_script([](const PeerRequest&) {
    return PeerPlan{.instead = PeerAnswer{.status = 401, .headers = {{"Connection", "close"}}}};
  });
  HttpRequest r = request("PUT");
  r.body = &body;
  EXPECT_EQ(client_.send(r, {}).status, 401);
}

TEST_F(HttpClientTest, ErrorsNameTheServerAndNoSecret) {
  peer_.close_port();
  HttpRequest r = request("GET", "/x?signature=hidden");
  r.headers = {{"X-Auth-Token", "hidden"}};
  const HttpError e = error_of(r);
  EXPECT_EQ(e.brief(), "refused");
  EXPECT_THAT(e.what(), HasSubstr("ask: " + peer_.url() + ": connection refused"));
  EXPECT_THAT(e.what() + e.hint(), testing::Not(HasSubstr("hidden")));
}

TEST(HttpDate, ReadsTheFormsOfHttp) {
  const auto time = parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT");
  EXPECT_EQ(time, std::chrono::system_clock::from_time_t(784111777));
  EXPECT_EQ(parse_http_date("Sunday, 06-Nov-94 08:49:37 GMT"), time);
  EXPECT_EQ(parse_http_date("no date"), std::nullopt);
  EXPECT_EQ(parse_http_date(""), std::nullopt);
}

}  // namespace
}  // namespace guestagent
