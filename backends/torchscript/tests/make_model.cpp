// Makes the models that the tests of the TorchScript backend run, and what they should give: NAME.pt and NAME.expected in a folder.
//
//     make_torchscript_models FOLDER
//
// The expected values are raw float32 and come from libtorch called directly, operator by operator, in a process of their own: no TorchScript
// takes part. Weights and inputs follow an integer formula that the tests know as well.
#include <torch/csrc/jit/serialization/pickle.h>
#include <torch/script.h>
#include <torch/version.h>

#include <fstream>
#include <iostream>
#include <string>
#include <vector>

namespace {

// Element i of the field with a number: a fraction of 1024, exact in float32.
at::Tensor field(int64_t seed, std::vector<int64_t> shape) {
    auto tensor = torch::empty(shape, at::kFloat);
    auto *values = tensor.data_ptr<float>();
    for (int64_t i = 0; i < tensor.numel(); i++)
        values[i] = static_cast<float>((i * 7919 + seed * 104729) % 1009) / 1024.0f - 0.5f;
    return tensor;
}

std::string folder;

void save(const std::string &name, const std::string &source, const std::vector<std::pair<std::string, at::Tensor>> &parameters = {}) {
    torch::jit::Module module("Net");
    for (const auto &parameter : parameters)
        module.register_parameter(parameter.first, parameter.second, false);
    module.define(source);
    module.save(folder + "/" + name + ".pt");
}

void expect(const std::string &name, at::Tensor tensor) {
    tensor = tensor.to(at::kFloat).contiguous();
    std::ofstream file(folder + "/" + name + ".expected", std::ios::binary);
    file.write(static_cast<const char *>(tensor.data_ptr()), static_cast<std::streamsize>(tensor.numel() * 4));
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 2)
        return 2;
    folder = argv[1];
    const torch::NoGradGuard no_gradients;
    const auto w1 = field(1, {8, 1, 3, 3, 3}), b1 = field(2, {8}), w2 = field(3, {2, 8, 1, 1, 1}), b2 = field(4, {2});
    const std::vector<std::pair<std::string, at::Tensor>> weights = {{"w1", w1}, {"b1", b1}, {"w2", w2}, {"b2", b2}};
    const auto x = field(5, {1, 1, 20, 22, 24});

    const std::string net = R"(
        y = torch.relu(torch.conv3d(x, self.w1, self.b1, [1, 1, 1], [1, 1, 1], [1, 1, 1], 1))
        y = torch.conv3d(y, self.w2, self.b2, [1, 1, 1], [0, 0, 0], [1, 1, 1], 1))";
    const auto logits = at::conv3d(at::relu(at::conv3d(x, w1, b1, 1, 1)), w2, b2);
    save("net", "\n    def forward(self, x):" + net + "\n        return y\n", weights);
    expect("net", logits);
    save("dict", "\n    def forward(self, x):" + net + "\n        return {'logits': y, 'labels': torch.argmax(y, 1)}\n", weights);
    expect("dict.labels", at::argmax(logits, 1));
    save("tuple", "\n    def forward(self, x):" + net + "\n        return (y, torch.sigmoid(y))\n", weights);
    expect("tuple.1", at::sigmoid(logits));

    // Two inputs, one of them with a default.
    save("predictor", R"(
    def forward(self, volume, mask, scale: float = 2.0):
        inside = (volume * mask).sum([2, 3, 4]) / mask.sum([2, 3, 4])
        return torch.sigmoid(inside * scale + volume.amax([2, 3, 4]))
)");
    const auto mask = field(6, {1, 1, 20, 22, 24}).gt(0.1).to(at::kFloat);
    const auto inside = at::sum(x * mask, {2, 3, 4}) / at::sum(mask, {2, 3, 4});
    expect("predictor", at::sigmoid(inside * 2.0 + at::amax(x, {2, 3, 4})));

    // Operators of the usual segmentation networks.
    save("wide", R"(
    def forward(self, x):
        a = torch.conv3d(x, self.w1, self.b1, [2, 2, 2], [1, 1, 1], [1, 1, 1], 1)
        a = torch.leaky_relu(torch.instance_norm(a, None, None, None, None, True, 0.1, 1e-5, False), 0.01)
        p = torch.max_pool3d(x, [2, 2, 2])
        b = torch.conv_transpose3d(torch.cat([a, p], 1), self.up, None, [2, 2, 2])
        b = torch.gelu(torch.group_norm(b, 2, None, None, 1e-5))
        c = torch.softmax(b, 1) + torch.constant_pad_nd(x, [1, 1, 0, 0, 2, 0])[:, :, 2:, :, 1:-1]
        s = torch.einsum('bcdhw,kc->bkdhw', [c, self.mix])
        return torch.matmul(s, torch.transpose(s, 3, 4)).clamp(-4.0, 4.0)
)",
         {{"w1", w1}, {"b1", b1}, {"up", field(7, {9, 4, 2, 2, 2})}, {"mix", field(8, {3, 4})}});
    {
        auto a = at::conv3d(x, w1, b1, 2, 1);
        a = at::leaky_relu(at::instance_norm(a, {}, {}, {}, {}, true, 0.1, 1e-5, false), 0.01);
        auto b = at::conv_transpose3d(at::cat({a, at::max_pool3d(x, 2)}, 1), field(7, {9, 4, 2, 2, 2}), {}, 2);
        b = at::gelu(at::group_norm(b, 2, {}, {}, 1e-5));
        using at::indexing::Slice;
        const auto padded = at::constant_pad_nd(x, {1, 1, 0, 0, 2, 0}).index({Slice(), Slice(), Slice(2), Slice(), Slice(1, -1)});
        const auto s = at::einsum("bcdhw,kc->bkdhw", {at::softmax(b, 1) + padded, field(8, {3, 4})});
        expect("wide", at::matmul(s, at::transpose(s, 3, 4)).clamp(-4.0, 4.0));
    }

    save("in_place", "\n    def forward(self, x):\n        return x.mul_(2.0)\n");
    save("raises", "\n    def forward(self, x):\n        assert x.numel() < 0, 'CUDA out of memory: Mueller 1949-03-02'\n        return x\n");
    save("endless", "\n    def forward(self, x):\n        i = 0\n        while i < 1000000000000:\n            x = x * 0.5 + 1.0\n            i += 1\n        return x\n");
    save("hungry", "\n    def forward(self, x):\n        return torch.zeros([1 << 46]) + x.sum()\n");
    save("greedy", "\n    def forward(self, x):\n        return torch.zeros([1 << 42], dtype=None, layout=None, device=x.device) + x.sum()\n");
    save("total", "\n    def forward(self, x):\n        return x.sum()\n");
    save("number", "\n    def forward(self, x):\n        return x.numel()\n");
    save("nothing", "\n    def forward(self, x):\n        return x * float('nan')\n");
    save("no_forward", "\n    def infer(self, x):\n        return x\n");

    // A state dict: tensors by name, and no code.
    c10::Dict<std::string, at::Tensor> weights_by_name;
    weights_by_name.insert("w1", w1);
    const auto bytes = torch::jit::pickle_save(weights_by_name);
    std::ofstream(folder + "/state_dict.pth", std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    std::cout << "libtorch " TORCH_VERSION "\n";
    return 0;
}
