#include "controller/remote_job.h"

#include <algorithm>

#include "base/journal.h"
#include "base/json.h"
#include "base/log.h"

namespace guestagent::controller {
namespace {

constexpr Millis kFirstPoll{20};
constexpr int kMostRestarts = 3;

std::string with_id(const RemoteJob& job) {
  JsonWriter out;
  out.begin_object();
  const JsonDocument params = parse_json(job.params, "params");
  for (auto member = params.MemberBegin(); member != params.MemberEnd(); ++member) {
    out.key({member->name.GetString(), member->name.GetStringLength()}).raw(to_json(member->value));
  }
  return out.member("job_id", job.job_id).member("async", true).end_object().text();
}

std::string only_id(const std::string& job_id) {
  return JsonWriter().begin_object().member("job_id", job_id).end_object().text();
}

struct Record {
  // An agent's job that is in a state which this controller does not know has failed.
  RunState state = RunState::failed;
  JobView view;
  JobEnd end;
};

// Lenient: another version of the agent may say more, or less.
Record read_record(const std::string& text) {
  const JsonDocument document = parse_json(text, "the job's record");
  const JsonReader in(document, "job", Code::internal);
  Record out;
  const std::string state = in.string("state");
  out.state = from_text<RunState>(state).value_or(RunState::failed);
  out.view.job_id = in.opt_string("job_id").value_or("");
  out.view.phase = in.opt_string("phase").value_or("");
  if (const auto progress = in.opt_object("progress")) {
    out.view.done_bytes = progress->opt_uint("done_bytes").value_or(0);
    out.view.total_bytes = progress->opt_uint("total_bytes");
    out.view.rate = progress->opt_number("rate").value_or(0);
    out.view.eta_s = progress->opt_uint("eta_s");
    // A total is an estimate: one that was passed says nothing any more.
    if (out.view.total_bytes && out.view.done_bytes > *out.view.total_bytes) {
      out.view.past_total = true;
      out.view.total_bytes.reset();
      out.view.eta_s.reset();
    }
  }
  if (out.state == RunState::running) {
    out.view.snapshot_href = in.opt_string("snapshot_href").value_or("");
  } else if (out.state == RunState::succeeded) {
    out.end.how = JobEnd::How::succeeded;
    out.end.result = document.HasMember("result") ? to_json(document["result"]) : "{}";
  } else {
    out.end.how = out.state == RunState::cancelled ? JobEnd::How::cancelled : JobEnd::How::failed;
    out.end.error = {out.state == RunState::cancelled ? "CANCELLED" : "INTERNAL", "the agent's job ended: " + state,
                     ""};
    if (const auto error = in.opt_object("error")) {
      out.end.error.message = error->opt_string("message").value_or(out.end.error.message);
      if (const auto data = error->opt_object("data")) {
        out.end.error.code = data->opt_string("code").value_or(out.end.error.code);
        out.end.error.hint = data->opt_string("hint").value_or("");
      }
    }
  }
  return out;
}

// A connection may break once without a meaning; what is to be stopped is not waited for longer than this many tries.
constexpr int kTriesToCancel = 2;

JobEnd lost_while_cancelled(const Error& last) {
  return {JobEnd::How::lost,
          {},
          {"CANCELLED", std::string("cancelled on request; its agent did not answer: ") + last.what(),
           "when the agent is back, its job is stopped there"}};
}

JobEnd lost(const Error& last) {
  return {JobEnd::How::lost,
          {},
          {"UNAVAILABLE", std::string("the agent fell silent: ") + last.what(),
           "bring the agent back; what its job came to is then learnt and set right"}};
}

}  // namespace

TaskError task_error(const Error& error) {
  return {std::string(code_row(error.code()).wire), error.what(), error.hint()};
}

JobEnd JobRunner::run(const RemoteJob& job, const std::function<bool()>& cancelled,
                      const std::function<void(JobView)>& show, std::stop_token stop,
                      const std::function<bool()>& hurry) {
  const std::string params = with_id(job);
  const SteadyTime begun = clock_.steady();
  SteadyTime last_answer = begun;
  Millis pause = kFirstPoll;
  bool asked = !job.begin, told_to_stop = false;
  int restarts = 0, unanswered = 0;
  JobView view;
  view.job_id = job.job_id;
  const auto note = [&](const std::string& text) {
    view.note = text;
    show(view);
  };
  const auto rest = [&] {
    if (!clock_.sleep(pause, stop)) throw Error(Code::cancelled, "the controller stops");
    pause = std::min(settings_.job_poll, pause * 3 / 2);
  };

  for (;;) {
    if (stop.stop_requested()) throw Error(Code::cancelled, "the controller stops");
    const bool want_stop = cancelled();
    try {
      if (!asked && !want_stop) {
        failpoint("rpc:" + job.method + ":before");
        agents_.call(job.address, job.method, params, stop);
        failpoint("rpc:" + job.method + ":after");
        asked = true;
        last_answer = clock_.steady();
        unanswered = 0;
        continue;
      }
      const Record record = read_record(agents_.call(job.address, "get_job", only_id(job.job_id), stop));
      asked = true;
      last_answer = clock_.steady();
      unanswered = 0;
      view = record.view;
      view.job_id = job.job_id;
      show(view);
      if (record.state != RunState::running) return record.end;
      if (want_stop && !told_to_stop) {
        agents_.call(job.address, "cancel_job", only_id(job.job_id), stop);
        told_to_stop = true;
        pause = kFirstPoll;
      } else if (told_to_stop && hurry()) {
        return lost_while_cancelled(Error(Code::deadline_exceeded, "its job has not stopped yet"));
      }
    } catch (const NoAnswer& e) {
      note(e.what());
      ++unanswered;
      if (cancelled()) {
        if (unanswered >= kTriesToCancel) return lost_while_cancelled(e);
        pause = kFirstPoll;
      } else if (clock_.steady() - last_answer > settings_.lost_after || hurry()) {
        return lost(e);
      }
    } catch (const Error& e) {
      if (stop.stop_requested()) throw;
      if (e.code() == Code::busy) {
        last_answer = clock_.steady();
        if (last_answer - begun > settings_.busy_timeout || hurry()) return {JobEnd::How::failed, {}, task_error(e)};
        note(std::string("waits: ") + e.what());
      } else if (e.code() == Code::not_found && (asked || want_stop)) {
        last_answer = clock_.steady();
        if (want_stop) return {JobEnd::How::cancelled, {}, {"CANCELLED", "cancelled on request", ""}};
        if (!job.begin) return {JobEnd::How::failed, {}, task_error(e)};
        // The agent has lost the record, so the job cannot have been completed there either.
        if (++restarts > kMostRestarts) return {JobEnd::How::failed, {}, task_error(e)};
        asked = false;
      } else if (!asked && !want_stop) {
        return {JobEnd::How::failed, {}, task_error(e)};
      } else if (e.code() != Code::failed_precondition) {  // which is the answer to a cancel that came too late
        note(e.what());
        if (cancelled() && ++unanswered >= kTriesToCancel) return lost_while_cancelled(e);
        if (clock_.steady() - last_answer > settings_.lost_after || hurry()) return lost(e);
      }
    }
    rest();
  }
}

std::optional<JobEnd> JobRunner::find_out(const std::string& address, const std::string& job_id, std::stop_token stop) {
  try {
    const Record record = read_record(agents_.call(address, "get_job", only_id(job_id), stop));
    if (record.state != RunState::running) return record.end;
    agents_.call(address, "cancel_job", only_id(job_id), stop);
    return std::nullopt;
  } catch (const NoAnswer&) {
    return std::nullopt;
  } catch (const Error& e) {
    if (e.code() == Code::not_found) return JobEnd{JobEnd::How::failed, {}, task_error(e)};
    if (stop.stop_requested()) throw;
    return std::nullopt;
  }
}

}  // namespace guestagent::controller
