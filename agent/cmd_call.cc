#include <unistd.h>

#include <csignal>
#include <cstdio>

#include "agent/client.h"
#include "agent/commands.h"
#include "agent/dispatcher.h"
#include "agent/progress_view.h"
#include "agent/signals.h"
#include "base/id.h"
#include "base/json.h"
#include "config/settings.h"
#include "storage/stores.h"

namespace guestagent {
namespace {

// A job's method is started and then followed, so that its progress shows and a broken connection loses
// nothing.
std::string call_and_follow(Client& client, const CommandLine& line, JsonDocument params) {
  auto& allocator = params.GetAllocator();
  std::string job_id;
  const JsonValue& asked = params;
  if (const auto given = asked.FindMember("job_id"); given != asked.MemberEnd() && given->value.IsString()) {
    job_id = given->value.GetString();
  } else {
    job_id = new_id(system_clock());
    params.RemoveMember("job_id");
    params.AddMember("job_id", JsonValue(job_id.c_str(), allocator), allocator);
  }
  params.RemoveMember("async");
  params.AddMember("async", true, allocator);
  client.call(line.method, to_json(params));

  ProgressView view(STDERR_FILENO, ::isatty(STDERR_FILENO) == 1);
  const SignalWatch watch([&](int signal) {
    view.end();
    std::fprintf(stderr, "the job goes on: guestagent call wait_job '{\"job_id\": \"%s\"}', or cancel_job\n",
                 job_id.c_str());
    ::_exit(128 + signal);
  });
  client.follow(job_id, [&](const JobRecord& record) { view.show(record); });
  for (;;) {
    const std::string text = client.call("wait_job", "{\"timeout_s\":3600,\"job_id\":\"" + job_id + "\"}");
    const JsonDocument record = parse_json(text, "job record");
    const JsonReader in(record, "job record", Code::internal);
    if (in.string("state") == "running") {
      // A job whose process has died is not waited for by the daemon; it recovers it before long.
      system_clock().sleep(Millis(1000), {});
      continue;
    }
    view.end();
    for (const std::string& warning : in.strings("warnings")) std::fprintf(stderr, "warning: %s\n", warning.c_str());
    if (in.has("error")) throw JobError(read_rpc_error(to_json(in.object("error").value())), job_id);
    return record.HasMember("result") ? to_json(record["result"]) : "null";
  }
}

}  // namespace

int run_call(const CommandLine& line) {
  check_result_can_be_written();
  hold_signals();
  const JsonDocument params = parse_json(read_params(line.params), "params");
  if (!params.IsObject()) throw Error(Code::invalid_argument, "params: must be an object");
  Client client(load_settings(line.config, store_sections()).agent.socket);

  const auto asks = [&](const char* flag) {
    return params.HasMember(flag) && params[flag].IsBool() && params[flag].GetBool();
  };
  const bool well_formed = !params.HasMember("async") || params["async"].IsBool();
  if (runs_as_job(line.method) && well_formed && !asks("async") && !asks("dry_run")) {
    JsonDocument copy;
    copy.CopyFrom(params, copy.GetAllocator());
    print_result(call_and_follow(client, line, std::move(copy)));
    return 0;
  }
  const SignalWatch watch([](int signal) { ::_exit(128 + signal); });
  print_result(client.call(line.method, to_json(params)));
  return 0;
}

}  // namespace guestagent
