// The other end of the agent's socket, for `guestagent call`.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "agent/job_records.h"
#include "base/file.h"
#include "net/http_client.h"

namespace guestagent {

class Client {
 public:
  explicit Client(fs::path socket);

  // The result of a call as JSON text. Throws what the agent answered (JobError when it named a job),
  // unavailable when nobody serves the socket.
  std::string call(const std::string& method, std::string_view params_json);

  // Tells `each` how the job goes on, until it has ended or the connection has.
  void follow(const std::string& job_id, const std::function<void(const JobRecord&)>& each);

 private:
  HttpRequest request(const std::string& method, const std::string& path) const;
  HttpResponse send(const HttpRequest& request);
  const fs::path socket_;
  HttpClient http_;
};

}  // namespace guestagent
