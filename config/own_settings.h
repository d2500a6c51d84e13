// Settings of types that this layer does not know: each plug's own, held by their type.
#pragma once

#include <map>
#include <memory>
#include <typeindex>
#include <typeinfo>

namespace guestagent {

// A value: copies and compares as its contents do. What was never set is as its type's default. Not thread-safe to
// change. T is copyable, comparable and has defaults.
class OwnSettings {
 public:
  OwnSettings() = default;
  OwnSettings(const OwnSettings& other) {
    for (const auto& [type, held] : other.held_) held_.emplace(type, held->clone());
  }
  OwnSettings(OwnSettings&&) = default;
  OwnSettings& operator=(OwnSettings other) {
    held_.swap(other.held_);
    return *this;
  }
  ~OwnSettings() = default;

  // The reference is good for as long as this lives and nothing is assigned to it.
  template <typename T>
  T& of() {
    std::unique_ptr<Held>& slot = held_[typeid(T)];
    if (!slot) slot = std::make_unique<HeldOf<T>>();
    return static_cast<HeldOf<T>&>(*slot).value;
  }
  template <typename T>
  T get() const {
    const auto found = held_.find(typeid(T));
    return found == held_.end() ? T() : static_cast<const HeldOf<T>&>(*found->second).value;
  }

  bool operator==(const OwnSettings& other) const { return within(other) && other.within(*this); }

 private:
  struct Held {
    virtual ~Held() = default;
    virtual std::unique_ptr<Held> clone() const = 0;
    virtual bool same(const Held* other) const = 0;  // nullptr: the default
  };
  template <typename T>
  struct HeldOf : Held {
    std::unique_ptr<Held> clone() const override { return std::make_unique<HeldOf>(*this); }
    bool same(const Held* other) const override {
      return value == (other == nullptr ? T() : static_cast<const HeldOf*>(other)->value);
    }
    T value = {};
  };

  bool within(const OwnSettings& other) const {
    for (const auto& [type, held] : held_) {
      const auto found = other.held_.find(type);
      if (!held->same(found == other.held_.end() ? nullptr : found->second.get())) return false;
    }
    return true;
  }

  std::map<std::type_index, std::unique_ptr<Held>> held_;
};

}  // namespace guestagent
