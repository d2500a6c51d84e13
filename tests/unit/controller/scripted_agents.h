// Agents that answer what a test says.
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "base/json.h"
#include "controller/agent_client.h"

namespace guestagent::controller {

class ScriptedAgents : public Agents {
 public:
  struct Call {
    std::string address, method, params;
  };
  using Answer = std::function<std::string(const Call& call, int nth_of_method)>;
  explicit ScriptedAgents(Answer answer) : answer_(std::move(answer)) {}

  std::string call(const std::string& address, std::string_view method, std::string_view params,
                   std::stop_token) override {
    const Call made{address, std::string(method), std::string(params)};
    int nth = 0;
    {
      std::lock_guard lock(mutex_);
      calls_.push_back(made);
      for (const Call& one : calls_) nth += one.method == made.method;
    }
    return answer_(made, nth);
  }

  std::vector<Call> calls(const std::string& method = {}) const {
    std::lock_guard lock(mutex_);
    std::vector<Call> out;
    for (const Call& one : calls_) {
      if (method.empty() || one.method == method) out.push_back(one);
    }
    return out;
  }

 private:
  Answer answer_;
  mutable std::mutex mutex_;
  std::vector<Call> calls_;
};

inline NoAnswer silence() {
  return NoAnswer(Error(Code::unavailable, "nobody is there"));
}

}  // namespace guestagent::controller
