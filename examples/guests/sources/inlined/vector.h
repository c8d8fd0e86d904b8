// Vectors of any length and component, all of it meant to be inlined.
#pragma once

#include <array>
#include <cstddef>

namespace geometry {

template <typename Component, std::size_t Length>
struct Vector {
    std::array<Component, Length> components{};

    template <typename Operation>
    constexpr Vector zip(const Vector &other, Operation operation) const {
        Vector result;
        for (std::size_t i = 0; i < Length; i++) {
            result.components[i] = operation(components[i], other.components[i]);
        }
        return result;
    }

    constexpr Vector operator+(const Vector &other) const {
        return zip(other, [](Component left, Component right) { return left + right; });
    }

    constexpr Vector operator-(const Vector &other) const {
        return zip(other, [](Component left, Component right) { return left - right; });
    }

    constexpr Vector operator*(Component factor) const {
        return zip(*this, [factor](Component component, Component) { return component * factor; });
    }

    constexpr Component dot(const Vector &other) const {
        Component sum{};
        for (std::size_t i = 0; i < Length; i++) sum += components[i] * other.components[i];
        return sum;
    }
};

inline float square_root(float value) { return __builtin_sqrtf(value); }
inline double square_root(double value) { return __builtin_sqrt(value); }

template <typename Component, std::size_t Length>
Component length(const Vector<Component, Length> &vector) {
    return square_root(vector.dot(vector));
}

template <typename Component, std::size_t Length>
Vector<Component, Length> normalized(const Vector<Component, Length> &vector) {
    return vector * (Component{1} / length(vector));
}

using Point = Vector<float, 3>;

}  // namespace geometry
