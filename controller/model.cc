#include "controller/model.h"

namespace guestagent::controller {

template <>
std::span<const Word<InstanceState>> words_of() {
  using enum InstanceState;
  static constexpr Word<InstanceState> kWords[] = {
      {spare, "spare"}, {building, "building"}, {active, "active"}, {lost, "lost"}, {failed, "failed"}};
  return kWords;
}

}  // namespace guestagent::controller
