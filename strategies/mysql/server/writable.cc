#include "strategies/mysql/server/writable.h"

#include <algorithm>

#include "base/log.h"
#include "strategies/mysql/server/journal_steps.h"

namespace guestagent::mysql {
Writable::Writable(ServerClient& client, Journal& journal) : client_(client), journal_(journal) {
  if (!client_.refuses_all_writes()) return;
  journal_.record(step::kWritable);
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
  journal_.record(step::kWritableDone);
}

void refuse_again(ServerClient& client, Journal& journal) {
  const auto count = [&](std::string_view name) {
    return std::count_if(journal.steps().begin(), journal.steps().end(),
                         [&](const auto& each) { return each.name == name; });
  };
  if (count(step::kWritable) == count(step::kWritableDone)) return;
  client.refuse_all_writes(true);
  while (count(step::kWritable) > count(step::kWritableDone)) journal.record(step::kWritableDone);
}

}  // namespace guestagent::mysql
