// The API's client side, for the shell commands.
#pragma once

#include <optional>
#include <string>

#include "base/json.h"
#include "base/secret.h"
#include "net/http_address.h"

namespace guestagent::controller {

struct ClientOptions {
  std::string url;  // empty: GUESTAGENT_CONTROLLER of the environment, else the socket of the configuration
  fs::path config, token_file, ca_file, certificate, key;
};

class CommandClient {
 public:
  // Throws Error for files that cannot be used.
  explicit CommandClient(const ClientOptions& options);

  // The answer's body. Throws the API's error (with its words), unavailable when nobody answers. A POST
  // or DELETE is sent with a key of its own, so that one whose answer was lost can be sent again: it is, a few times.
  std::string get(const std::string& target);
  std::string post(const std::string& target, const std::string& body);
  void remove(const std::string& target);

 private:
  std::string ask(const std::string& method, const std::string& target, const std::string& body,
                  const std::string& key);
  std::string ask_again(const std::string& method, const std::string& target, const std::string& body);
  HttpAddress address_;
  Secret token_;
  std::optional<HttpClient> http_;
};

// Encoded for one segment of a path.
std::string path_segment(const std::string& text);

}  // namespace guestagent::controller
