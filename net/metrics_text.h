// Prometheus text (exposition format 0.0.4), for both roles' GET /metrics.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace guestagent {

inline constexpr const char* kMetricsType = "text/plain; version=0.0.4; charset=utf-8";

class MetricsText {
 public:
  using Labels = std::initializer_list<std::pair<std::string_view, std::string_view>>;

  // Begins a family: the samples that follow are its own, and come nowhere else. `kind` is "gauge" or "counter" (whose
  // name ends in _total).
  void family(std::string_view name, std::string_view kind, std::string_view help);
  // A label's value may hold anything: what the format gives a meaning is escaped, what is no UTF-8 is replaced.
  void sample(Labels labels, double value);
  std::string take() { return std::move(text_); }

 private:
  std::string text_, name_;
};

}  // namespace guestagent
