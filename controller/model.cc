#include "controller/model.h"

namespace guestagent::controller {

template <>
std::span<const Word<InstanceState>> words_of() {
  using enum InstanceState;
  static constexpr Word<InstanceState> kWords[] = {
      {spare, "spare"}, {building, "building"}, {active, "active"}, {lost, "lost"}, {failed, "failed"}};
  return kWords;
}

template <>
std::span<const Word<Verdict>> words_of() {
  using enum Verdict;
  static constexpr Word<Verdict> kWords[] = {
      {unknown, "unknown"},   {unreachable, "unreachable"}, {source, "source"},
      {healthy, "healthy"},   {lagging, "lagging"},         {broken, "broken"},
      {diverged, "diverged"}, {standalone, "standalone"},   {restoring, "restoring"}};
  return kWords;
}

template <>
std::span<const Word<Role>> words_of() {
  static constexpr Word<Role> kWords[] = {
      {Role::source, "source"}, {Role::replica, "replica"}, {Role::standalone, "standalone"}};
  return kWords;
}

template <>
std::span<const Word<RunState>> words_of() {
  using enum RunState;
  static constexpr Word<RunState> kWords[] = {
      {running, "running"}, {succeeded, "succeeded"}, {failed, "failed"}, {cancelled, "cancelled"}};
  return kWords;
}

template <>
std::span<const Word<ReplicaState>> words_of() {
  using enum ReplicaState;
  static constexpr Word<ReplicaState> kWords[] = {
      {pending, "pending"},     {provisioning, "provisioning"}, {ready, "ready"},   {attaching, "attaching"},
      {detaching, "detaching"}, {succeeded, "succeeded"},       {failed, "failed"}, {cancelled, "cancelled"}};
  return kWords;
}

}  // namespace guestagent::controller
