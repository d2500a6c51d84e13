#include "strategies/mysql/server/writable.h"

#include <algorithm>

#include "base/log.h"

namespace guestagent::mysql {
namespace {

constexpr std::string_view kOpenStep = "source.writable";
constexpr std::string_view kClosedStep = "source.writable.done";

}  // namespace

Writable::Writable(ServerClient& client, Journal& journal) : client_(client), journal_(journal) {
  if (!client_.refuses_all_writes()) return;
  journal_.record(kOpenStep);
  open_ = true;
  client_.refuse_all_writes(false);
}

Writable::~Writable() {
  try {
    close();
  } catch (const std::exception& e) {
    log_error("the server could not be made to refuse every writer again now", {{"error", e.what()}});
  }
}

void Writable::close() {
  if (!open_) return;
  client_.refuse_all_writes(true);
  open_ = false;
  journal_.record(kClosedStep);
}

void refuse_again(ServerClient& client, Journal& journal) {
  const auto count = [&](std::string_view name) {
    return std::count_if(journal.steps().begin(), journal.steps().end(),
                         [&](const auto& step) { return step.name == name; });
  };
  if (count(kOpenStep) == count(kClosedStep)) return;
  client.refuse_all_writes(true);
  while (count(kOpenStep) > count(kClosedStep)) journal.record(kClosedStep);
}

}  // namespace guestagent::mysql
