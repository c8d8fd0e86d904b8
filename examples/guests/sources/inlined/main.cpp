// The inlining guest: a small ray caster in the style of ordinary C++ (templates, lambdas, virtual calls, the standard
// library's algorithms), in which nearly every function is inlined, often several deep and from several files. Its
// inlined frames and lines are compared with those of other DWARF readers. Runs about a second.

#include <algorithm>
#include <numeric>

#include "../guest.h"
#include "shapes.h"

// What a vtable calls for a method that has no body.
extern "C" void __cxa_pure_virtual() { __builtin_trap(); }

namespace {

constexpr int WIDTH = 320, HEIGHT = 240, PICTURES = PICTURES_DRAWN;
constexpr std::size_t SPHERES = 12, SHAPES = SPHERES + 1;

struct Hit {
    float distance;
    const scene::Shape *shape;
};

class Random {
  public:
    explicit Random(std::uint64_t seed) : state(seed) {}

    // Between 0 and 1.
    float next() {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return static_cast<float>(state >> 40) / static_cast<float>(1 << 24);
    }

  private:
    std::uint64_t state;
};

template <typename Visit>
void for_each_pixel(Visit visit) {
    for (int y = 0; y < HEIGHT; y++) {
        for (int x = 0; x < WIDTH; x++) visit(x, y);
    }
}

template <typename Shapes>
std::size_t hits_of(const Shapes &shapes, const scene::Ray &ray, std::array<Hit, SHAPES> &hits) {
    std::size_t count = 0;
    for (const scene::Shape *shape : shapes) {
        float distance = shape->hit(ray);
        if (distance > 0.001f) hits[count++] = {distance, shape};
    }
    std::sort(hits.begin(), hits.begin() + count,
              [](const Hit &left, const Hit &right) { return left.distance < right.distance; });
    return count;
}

// All hits count, the nearest most: that keeps the sort from being needless.
template <typename Shapes>
float brightness(const Shapes &shapes, const scene::Ray &ray) {
    std::array<Hit, SHAPES> hits;
    std::size_t count = hits_of(shapes, ray, hits);
    float weight = 1;
    return std::accumulate(hits.begin(), hits.begin() + count, 0.0f, [&](float sum, const Hit &hit) {
        weight *= 0.5f;
        auto light = geometry::normalized(geometry::Point{{1, 2, -1}});
        return sum + weight * std::max(0.0f, hit.shape->normal(ray.at(hit.distance)).dot(light));
    });
}

scene::Ray ray_through(int x, int y) {
    geometry::Point screen{{static_cast<float>(x) / WIDTH - 0.5f, 0.5f - static_cast<float>(y) / HEIGHT, 1}};
    return {geometry::Point{}, geometry::normalized(screen)};
}

template <std::size_t... Index>
std::array<scene::Sphere, SPHERES> random_spheres(Random &random, std::index_sequence<Index...>) {
    auto sphere = [&random](std::size_t index) {
        float x = random.next() * 4 - 2, y = random.next() * 2 - 1;
        return scene::Sphere{{{x, y, 3 + static_cast<float>(index) * 0.5f}}, 0.3f + random.next()};
    };
    return {sphere(Index)...};
}

NOINLINE double draw(Random &random) {
    auto spheres = random_spheres(random, std::make_index_sequence<SPHERES>());
    scene::Floor floor{-1};
    std::array<const scene::Shape *, SHAPES> shapes;
    std::transform(spheres.begin(), spheres.end(), shapes.begin(), [](const auto &sphere) { return &sphere; });
    shapes.back() = &floor;

    double sum = 0;
    for_each_pixel([&](int x, int y) { sum += brightness(shapes, ray_through(x, y)); });
    return sum;
}

}  // namespace

extern "C" EXPORT(_start) void _start() {
    Random random{7};
    double sum = 0;
    for (int picture = 0; picture < PICTURES; picture++) sum += draw(random);
    write_text(WASI_STDOUT, "brightness ");
    write_number(WASI_STDOUT, static_cast<std::uint64_t>(sum));
    write_text(WASI_STDOUT, "\n");
}
