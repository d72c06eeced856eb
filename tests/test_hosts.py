"""The host: an honest cut of the model, and a model that is found again exactly as it was."""
import copy
import warnings

import pandas as pd
import pytest
import torch
from torch import nn

from iin_nb import hosts, latents, objective, zoo
from iin_nb.core import HostError, IINError, MissingExtra, ShapeError
from iin_nb.explanation import certify
from iin_nb.factors import Layout
from iin_nb.fit import Recipe
from iin_nb.flow import FlowConfig


def run(model, x):
    "What the model itself says, in eval mode."
    with hosts.frozen(model): return model(x)


# ---- models to tap

class Skip(nn.Module):
    "Two residual blocks; information passes around what is inside them."
    def __init__(self, weight=1.0):
        super().__init__()
        self.stem, self.inner, self.after, self.head, self.weight = nn.Linear(6, 5), nn.Linear(5, 5), nn.Identity(), nn.Linear(5, 3), weight

    def forward(self, x):
        h = self.stem(x)
        return self.head(self.after(self.inner(h) + self.weight * h))


class AsksBatch(nn.Module):
    "Uses the batch size of its input half way."
    def __init__(self):
        super().__init__()
        self.e, self.g = nn.Conv2d(3, 2, 4, 4), nn.Linear(8, 4)

    def forward(self, x): return self.g(self.e(x).view(x.size(0), -1))


class AsksBatchQuietly(AsksBatch):
    "With one row instead of many it would not raise, but answer for the wrong number of rows."
    def forward(self, x): return self.g(self.e(x).flatten(1))[:x.size(0)]


class Reuse(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.act, self.b, self.g, self.unused = nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 5), nn.Linear(5, 3), nn.Linear(2, 2)

    def forward(self, x): return self.g(self.act(self.b(self.act(self.a(x)))))


class Swallows(nn.Module):
    "Catches every Exception inside its forward."
    def __init__(self):
        super().__init__()
        self.e, self.g, self.caught = nn.Linear(6, 5), nn.Linear(5, 3), 0

    def forward(self, x):
        try: return self.g(self.e(x))
        except Exception:
            self.caught += 1
            return torch.zeros(len(x), 3)


class InPlaceInput(nn.Module):
    "Scales its input in place."
    def __init__(self):
        super().__init__()
        self.e, self.g = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x): return self.g(self.e(x.mul_(0.5)))


class Breaks(nn.Module):
    "Raises `error` at call number `when`."
    def __init__(self, error, when):
        super().__init__()
        self.e, self.n, self.g, self.error, self.left = nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3), error, when

    def forward(self, x):
        h = self.n(self.e(x))
        self.left -= 1
        if self.left == 0: raise self.error
        return self.g(h)


class Text(nn.Module):
    "Answers in words."
    def forward(self, x): return "yes"


def rows(n=5, d=6, seed=0): return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


# ---- the cut is exact

@pytest.mark.parametrize("layer, shape", [
    ("features", (6,)), ("features.5", (6,)), ("features.0", (5, 2, 2)), ("features.1", (5, 2, 2)), ("features.3", (5, 2, 2)),
    ("features.4", (20,)), ("head.0", (6,)), ("head", (4,))])
@pytest.mark.parametrize("n", [1, 2, 17])
def test_decode_after_encode_is_the_model(net, pictures, layer, shape, n):
    host = hosts.tap(net, layer, pictures)
    x = torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(n))
    z = host.encode(x)
    assert host.z_shape == shape and host.dim == z.shape[1] and z.shape[0] == n and z.ndim == 2
    torch.testing.assert_close(host.decode(z), run(net, x), rtol=0, atol=1e-6)


def test_decode_answers_to_its_z_alone(net, pictures):
    host = hosts.tap(net, "features", pictures)
    z = rows(3)
    torch.testing.assert_close(host.decode(z), run(net.head, z.clone()))
    assert not torch.allclose(host.decode(z), host.decode(z + 1))


def test_decode_leaves_z_alone_where_an_in_place_layer_follows(net, pictures):
    host = hosts.tap(net, "features", pictures)
    z = -rows(4).abs()   # the ReLU would set all of it to 0
    kept = z.clone()
    host.decode(z)
    assert torch.equal(z, kept)


def test_model_that_changes_its_input_in_place_leaves_example_and_stand_in_alone():
    model, x = InPlaceInput(), rows()
    kept = x.clone()
    host = hosts.tap(model, "e", x)
    assert torch.equal(x, kept)
    z = host.encode(x.clone())
    assert torch.equal(host.decode(z), host.decode(z))


@pytest.mark.parametrize("model", [AsksBatch, AsksBatchQuietly])
@pytest.mark.parametrize("n", [1, 2, 9])
def test_models_that_ask_for_the_batch_size(model, pictures, n):
    model = model()
    host, x = hosts.tap(model, "e", pictures), torch.randn(n, 3, 8, 8)
    torch.testing.assert_close(host.decode(host.encode(x)), run(model, x))


def test_hook_gets_out_of_models_that_catch_every_exception():
    model, x = Swallows(), rows()
    host = hosts.tap(model, "e", x)
    torch.testing.assert_close(host.encode(x), model.e(x).detach())
    torch.testing.assert_close(host.decode(host.encode(x)), run(model, x))
    assert model.caught == 0


def test_images_out():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Linear(4, 12), nn.Unflatten(1, (3, 2, 2)))
    host = hosts.tap(model, "1", torch.randn(4, 3, 2, 2))
    assert host.outputs == "images" and host.decode(rows(2, 4)).shape == (2, 3, 2, 2)


def test_dead_units_are_no_flaw():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad(): model[0].bias[:3] = -100
    host = hosts.tap(model, "1", rows())
    z = host.encode(rows(50))
    assert (z[:, :3] == 0).all() and z.shape == (50, 8)
    torch.testing.assert_close(host.decode(z), run(model, rows(50)))


def test_double_models_and_models_that_change_dtype_after_tapping(net, pictures):
    double = hosts.tap(net.double(), "features", pictures.double())
    assert double.encode(pictures.double()).dtype == torch.float64
    net.float()
    torch.testing.assert_close(double.decode(double.encode(pictures)), run(net, pictures))


# ---- places that are refused, by name

@pytest.mark.parametrize("layer", ["inner"])
@pytest.mark.parametrize("weight", [1.0, 0.01])
def test_skip_is_refused(layer, weight):
    with pytest.raises(HostError, match=rf"hosts.tap \(Skip.{layer}\): expected a bottleneck, got information passing around it \(leak"):
        hosts.tap(Skip(weight), layer, rows())


@pytest.mark.parametrize("layer", ["stem", "after", "head"])
def test_bottleneck_beside_a_skip_is_accepted(layer):
    model = Skip()
    host = hosts.tap(model, layer, rows())
    torch.testing.assert_close(host.decode(host.encode(rows(7))), run(model, rows(7)))


def test_layer_called_twice_is_refused():
    with pytest.raises(HostError, match=r"called once, got 2 calls in one run. Tap the block"): hosts.tap(Reuse(), "act", rows())


def test_layer_never_called_is_refused():
    with pytest.raises(HostError, match="never calls"): hosts.tap(Reuse(), "unused", rows())


class Recurrent(nn.Module):
    "Goes on with the states at all times (`which` 0), or with the last one (1)."
    def __init__(self, which):
        super().__init__()
        self.rnn, self.g, self.which = nn.GRU(6, 4, batch_first=True), nn.Linear(4, 3), which

    def forward(self, x): return self.g(self.rnn(x[:, None])[self.which].reshape(len(x), 4))


def test_of_a_tuple_the_first_is_tapped():
    model = Recurrent(0)
    host = hosts.tap(model, "rnn", rows())
    assert host.z_shape == (1, 4)
    torch.testing.assert_close(host.decode(host.encode(rows(7))), run(model, rows(7)))


def test_the_rest_of_a_tuple_is_a_leak():
    with pytest.raises(HostError, match="information passing around it"): hosts.tap(Recurrent(1), "rnn", rows())


def test_layer_that_returns_no_tensor_is_refused():
    class Odd(nn.Module):
        def forward(self, x): return str(x.sum())

    class Talks(nn.Module):
        def __init__(self):
            super().__init__()
            self.odd, self.g = Odd(), nn.Linear(6, 3)

        def forward(self, x): return self.g(x) if self.odd(x) else None

    with pytest.raises(HostError, match="returns a tensor, got str. Tap one of its children"): hosts.tap(Talks(), "odd", rows())


# ---- tokens, records, several inputs

class Record(dict):
    "As transformers have it: a dict whose entries are attributes too."
    def __getattr__(self, name): return self[name]


class Tokens(nn.Module):
    "Token numbers and a mask to logits in a record; `pool` says what is read: the first token, or the mean."
    def __init__(self, pool="first", d=8):
        super().__init__()
        layer = nn.TransformerEncoderLayer(d, 2, 16, dropout=0.0, batch_first=True)
        self.embed, self.blocks = nn.Embedding(20, d), nn.ModuleList([Returns(layer), Returns(copy.deepcopy(layer))])
        self.head, self.pool = nn.Linear(d, 3), pool

    def forward(self, input_ids, attention_mask):
        h = self.embed(input_ids)
        for block in self.blocks: h = block(h, attention_mask)[0]
        return Record(hidden_states=h, logits=self.head(h[:, 0] if self.pool == "first" else h.mean(1)))


class Returns(nn.Module):
    "Puts out a tuple, as transformers' blocks do."
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, h, mask): return (self.layer(h, src_key_padding_mask=mask == 0), "attention")


def sentences(n=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    mask = torch.ones(n, 6, dtype=torch.long)
    mask[:, 4:] = torch.randint(2, (n, 2), generator=g)
    return dict(input_ids=torch.randint(20, (n, 6), generator=g), attention_mask=mask)


@pytest.mark.parametrize("pool, layer, token, shape", [
    ("first", "blocks.1", 0, (8,)), ("first", "blocks.1", None, (6, 8)), ("first", "blocks.0", None, (6, 8)), ("first", "head", None, (3,)),
    ("mean", "blocks.1", "mean", (8,)), ("first", "blocks.1", -6, (8,))])
@pytest.mark.parametrize("n", [1, 2, 9])
def test_tokens(pool, layer, token, shape, n, snapshot):
    torch.manual_seed(0)
    model, same = Tokens(pool), sentences(9, 3) | {"attention_mask": torch.ones(9, 6, dtype=torch.long)}
    before = snapshot(model)
    host = hosts.tap(model, layer, same, token=token)   # the mask is an input of every block: the same for all here
    x = {k: v[:n] for k, v in same.items()}
    z = host.encode(x)
    assert host.z_shape == shape and z.shape == (n, host.dim)
    torch.testing.assert_close(host.decode(z), _logits(model, x), rtol=1e-5, atol=1e-6)
    before.check()


def _logits(model, x):
    with hosts.frozen(model): return model(**x)["logits"]


def test_a_token_that_is_not_all_is_refused():
    torch.manual_seed(0)
    x = sentences() | {"attention_mask": torch.ones(5, 6, dtype=torch.long)}
    for layer, token in (("blocks.0", 0), ("blocks.1", 1), ("blocks.1", "mean"), ("blocks.0", "mean")):
        with pytest.raises(HostError, match="information passing around it.*reads this token from"):
            hosts.tap(Tokens(), layer, x, token=token)
    for token in (6, -7, "max", 1.0):
        with pytest.raises(HostError, match="tokens \\(B, L, D\\) to take"): hosts.tap(Tokens(), "blocks.1", x, token=token)
    with pytest.raises(HostError, match="tokens"): hosts.tap(Tokens(), "head", x, token=0)


def test_a_mask_that_differs_passes_around():
    torch.manual_seed(0)
    with pytest.raises(HostError, match="information passing around it"): hosts.tap(Tokens(), "blocks.0", sentences())


def test_layers_say_which_token_is_enough():
    torch.manual_seed(0)
    x = sentences() | {"attention_mask": torch.ones(5, 6, dtype=torch.long)}
    said = hosts.layers(Tokens(), x).set_index("layer").tap
    assert (said["blocks.1"], said["blocks.0"], said["head"]) == ("yes, token=0 is enough", "yes", "yes")
    assert hosts.layers(Tokens("mean"), x).set_index("layer").tap["blocks.1"] == "yes, token='mean' is enough"


class Two(nn.Module):
    "Two inputs by place."
    def __init__(self):
        super().__init__()
        self.a, self.b, self.g = nn.Linear(6, 4), nn.Linear(2, 4), nn.Linear(4, 3)
        self.sum = nn.Identity()

    def forward(self, x, y): return self.g(self.sum(self.a(x) + self.b(y)))


@pytest.mark.parametrize("kind", [tuple, list])
def test_several_inputs_by_place(kind):
    model, x = Two(), kind([rows(), rows(5, 2)])
    host = hosts.tap(model, "sum", x)
    with hosts.frozen(model): torch.testing.assert_close(host.decode(host.encode(x)), model(*x))
    with pytest.raises(HostError, match="passing around"): hosts.tap(model, "a", x)
    with pytest.raises(ShapeError, match=r"rows \(6,\) of torch.float32, \(2,\) of torch.float32"): host.encode(kind([rows(), rows(5, 3)]))
    with pytest.raises(ShapeError, match="got torch.float64"): host.encode(kind([rows(), rows(5, 2).double()]))
    with pytest.raises(HostError, match="5 rows and 4 rows"): hosts.tap(model, "sum", kind([rows(), rows(4, 2)]))


@pytest.mark.parametrize("layer, near", [
    ("feature", "'features'"), ("features.o", "'features."), ("haed", "'head'"), ("", "'features'"), ("zzzz", "'features'"),
    (5, "'features'")])
def test_typo_is_answered_with_names(net, pictures, layer, near):
    with pytest.raises(HostError, match=r"dotted path of a layer.*Did you mean") as e: hosts.tap(net, layer, pictures)
    assert near in str(e.value)


def test_random_model_is_refused():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.e, self.g = nn.Linear(6, 4), nn.Linear(4, 3)

        def forward(self, x): return self.g(self.e(x) + torch.randn(len(x), 4))

    with pytest.raises(HostError, match="same output for the same input"): hosts.tap(Noisy(), "e", rows())


def test_constant_model_is_refused():
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))
    nn.init.zeros_(model[1].weight)
    with pytest.raises(HostError, match="different outputs"): hosts.tap(model, "0", rows())


@pytest.mark.parametrize("model, got", [
    (nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 1)), r"shape \(5, 1\)"),
    (nn.Sequential(nn.Linear(6, 4), nn.Unflatten(1, (2, 2))), r"shape \(5, 2, 2\)"),
    (nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3), Text()), "str")])
def test_outputs_of_no_known_kind_are_refused(model, got):
    with pytest.raises(HostError, match=rf"expected an output of logits.*{got}"): hosts.tap(model, "0", rows())


@pytest.mark.parametrize("example", [rows(1), rows(1).repeat(3, 1), rows()[:0], torch.tensor(1.0), [[1.0]], None])
def test_example_that_tells_nothing_is_refused(example):
    with pytest.raises(HostError, match="at least two different inputs"): hosts.tap(Skip(), "stem", example)


def test_no_module_is_refused(pictures):
    with pytest.raises(HostError, match="from_functions"): hosts.tap(lambda x: x, "head", pictures)


# ---- inputs that are refused

@pytest.mark.parametrize("bad, match", [
    (lambda x: x.double(), "float32.*got torch.float64"),
    (lambda x: x[:, :2], r"rows \(3, 8, 8\)"), (lambda x: x[0, 0], r"rows \(3, 8, 8\)"),
    (lambda x: x.numpy(), "torch tensor, got ndarray"), (lambda x: (x * 100).byte(), "uint8"), (lambda x: x.to("meta"), "on cpu, got meta"),
    (lambda x: torch.zeros(2, 3, 16, 16), "rows")])
def test_bad_input(net, pictures, bad, match, snapshot):
    host = hosts.tap(net, "features", pictures)
    before = snapshot(net)
    with pytest.raises(ShapeError, match=match): host.encode(bad(pictures))
    before.check()


@pytest.mark.parametrize("whole", [torch.uint8, torch.int64])
def test_an_example_of_bytes_is_named(net, pictures, whole, snapshot):
    bad, before = (pictures * 100).to(whole), snapshot(net)
    for call in (lambda: hosts.tap(net, "features", bad), lambda: hosts.layers(net, bad)):
        with pytest.raises(ShapeError, match=rf"hosts.*expected an example of floats, got {whole}\. Bytes to \[-1, 1\]: x.float"): call()
    before.check()


def test_another_failure_on_whole_numbers_is_left_as_it_is():
    class Broken(torch.nn.Module):
        def forward(self, x): raise RuntimeError("broken in its own way")
    with pytest.raises(RuntimeError, match="broken in its own way"): hosts.tap(torch.nn.Sequential(Broken()), "0", torch.arange(8)[:, None])


def test_bytes_for_floats_and_another_scale(pictures, monkeypatch):
    "A black box that takes anything: what the example was decides. Floats may be meant, so they bring a warning."
    monkeypatch.setattr("iin_nb.core._warned", set())
    def mean(x): return x.float().mean((2, 3))
    floats = hosts.from_functions(mean, lambda z: z, pictures / pictures.abs().max())
    more = (pictures / pictures.abs().max() + 1) * 127.5
    with pytest.raises(ShapeError, match=r"inputs of floats.* got torch.uint8\. Bytes to \[-1, 1\]"): floats.encode(more.byte())
    with pytest.warns(UserWarning, match=r"inputs up to 2\d\d; .* end at 1\. Rescale"): floats.encode(more)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x in (pictures, 10 * pictures, pictures[:0], more): floats.encode(x)   # told once
        own = hosts.from_functions(mean, lambda z: z, more)
        bytes_ = hosts.from_functions(mean, lambda z: z, more.byte())
        assert torch.equal(bytes_.encode(more.byte()), mean(more.byte())) and torch.equal(own.encode(more), mean(more))
        assert torch.equal(bytes_.encode(more), mean(more)), "a host of bytes judges floats itself"


def test_other_sizes_are_refused_where_z_would_differ():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    host = hosts.tap(model, "0", torch.randn(3, 3, 8, 8))
    with pytest.raises(ShapeError, match=r"z of shape \(4, 6, 6\), got \(4, 8, 8\)"): host.encode(torch.randn(2, 3, 10, 10))


@pytest.mark.parametrize("bad", [
    torch.zeros(6), torch.zeros(2, 5), torch.zeros(2, 6, 1), torch.zeros(2, 6).double(), torch.zeros(2, 6, device="meta"), [0.0] * 6])
def test_bad_z(net, pictures, bad):
    host = hosts.tap(net, "features", pictures)
    with pytest.raises(ShapeError, match=r"hosts.decode \(net\): expected z"): host.decode(bad)


# ---- nothing is left behind

def test_success_leaves_the_model_as_it_was(net, pictures, snapshot):
    before = snapshot(net)
    net.features[0].register_forward_hook(lambda *a: None).remove()
    host = hosts.tap(net, "features", pictures)
    host.decode(host.encode(pictures)), host.fingerprint(), hosts.layers(net, pictures)
    before.check()


def test_hooks_of_others_stay_and_are_heeded(net, pictures, snapshot):
    net.features.register_forward_hook(lambda module, args, out: out * 2)
    before = snapshot(net)
    host = hosts.tap(net, "features", pictures)
    torch.testing.assert_close(host.decode(host.encode(pictures)), run(net, pictures))
    before.check()


@pytest.mark.parametrize("when", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), MemoryError()], ids=lambda e: type(e).__name__)
def test_failure_in_tap_leaves_the_model_as_it_was(error, when, snapshot):
    model = Breaks(error, when)
    before = snapshot(model)
    try: hosts.tap(model, "n", rows())
    except type(error): pass
    else: assert when == 5 or (when == 4 and isinstance(error, Exception)), "the error was lost"
    before.check()


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()], ids=lambda e: type(e).__name__)
def test_failure_in_encode_and_decode_leaves_the_model_as_it_was(error, snapshot):
    model = Breaks(error, -1)
    host = hosts.tap(model, "g", rows())
    before, z = snapshot(model), host.encode(rows())
    calls = [lambda g=g: host.encode(rows(), grad=g) for g in (False, True)] + [lambda g=g: host.decode(z, grad=g) for g in (False, True)]
    for ask in calls:
        model.left = 1
        with pytest.raises(type(error)): ask()
        before.check()


def test_refusals_leave_the_model_as_it_was(net, pictures, snapshot):
    model = Skip().train()
    before = snapshot(model)
    for layer in ("inner", "iner"):
        with pytest.raises(IINError): hosts.tap(model, layer, rows())
    before.check()


def test_frozen_without_a_model():
    with hosts.frozen(None): assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


# ---- gradients

def test_gradients_only_when_asked_and_never_into_the_weights(net, pictures):
    net.head[1].weight.requires_grad_(False)   # somebody's choice, to be kept
    host = hosts.tap(net, "features", pictures)
    x = pictures.clone().requires_grad_()
    assert not host.encode(x).requires_grad and not host.decode(host.encode(x)).requires_grad
    host.decode(host.encode(x, grad=True), grad=True).square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None for p in net.parameters())
    assert [n for n, p in net.named_parameters() if not p.requires_grad] == ["head.1.weight"]


def test_gradient_is_the_models(net, pictures):
    host = hosts.tap(net, "features", pictures)
    x, u = pictures.clone().requires_grad_(), pictures.clone().requires_grad_()
    host.decode(host.encode(x, grad=True), grad=True)[:, 1].sum().backward()
    with hosts.frozen(net, grad=True): net(u)[:, 1].sum().backward()
    torch.testing.assert_close(x.grad, u.grad)


def test_gradients_are_off_inside_even_if_on_outside(net, pictures):
    host = hosts.tap(net, "features", pictures)
    with torch.no_grad(): assert host.encode(pictures.clone().requires_grad_(), grad=True).requires_grad   # asked is asked
    assert torch.is_grad_enabled()


# ---- identity

def test_fingerprint(net, pictures):
    host = hosts.tap(net, "features", pictures)
    first = host.fingerprint()
    assert first == hosts.tap(net, "head", pictures).fingerprint() == host.fingerprint() and len(first) == 64
    with torch.no_grad(): net.features[1].running_mean[0] += 1e-6   # buffers count
    assert host.fingerprint() != first


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_fingerprint_takes_every_dtype(net, pictures, dtype):
    host = hosts.tap(net, "features", pictures)
    before = host.fingerprint()
    net.to(dtype)
    assert host.fingerprint() != before


def test_fingerprint_knows_shapes():
    a, b = nn.Linear(2, 8, bias=False), nn.Linear(8, 2, bias=False)
    with torch.no_grad(): b.weight.copy_(a.weight.reshape(2, 8))
    ha, hb = (hosts.Host("h", (1,), "logits", m, None, None) for m in (a, b))
    assert ha.fingerprint() != hb.fingerprint()


# ---- layers

def test_layers_agree_with_tap(net, pictures):
    for model, x in ((net, pictures), (Skip(), rows()), (Reuse(), rows())):
        table = hosts.layers(model, x)
        assert list(table.layer) == [n for n, _ in model.named_modules() if n]
        for row in table.itertuples():
            try: host = hosts.tap(model, row.layer, x)
            except HostError as e: assert row.tap in str(e)
            else: assert row.tap == "yes" and row.z_shape == host.z_shape and row.dim == host.dim


# ---- two functions

def test_from_functions():
    w = rows(6, 4)
    host = hosts.from_functions(lambda x: (x @ w, torch.full((len(x), 4), 0.1)), lambda z: z @ w.T, rows(), "linear")
    mean, std = host.posterior(rows())
    assert host.z_shape == (4,) and host.outputs == "logits" and host.fingerprint() == "" and std.shape == mean.shape == (5, 4)
    assert torch.equal(host.encode(rows()), mean)


@pytest.mark.parametrize("encode, decode, match", [
    (lambda x: x.sum(1), lambda z: z, r"shape \(2,\)"),
    (lambda x: x.numpy(), lambda z: z, "ndarray"),
    (lambda x: x[:1], lambda z: z, r"shape \(1, 6\) for 2 inputs"),
    (lambda x: (x, -x.abs()), lambda z: z, "std ≥ 0"),
    (lambda x: (x, x[:, :2].abs()), lambda z: z, r"shape \(2, 2\)"),
    (lambda x: x, lambda z: z.sum(), "output of logits"),
    (lambda x: x, lambda z: z[:1], r"shape \(1, 6\) for 2 inputs")])
def test_from_functions_refuses(encode, decode, match):
    with pytest.raises(HostError, match=match): hosts.from_functions(encode, decode, rows())


def test_from_functions_keeps_its_model_in_eval_mode(net, pictures, snapshot):
    before = snapshot(net)
    host = hosts.from_functions(net.features, net.head, pictures, model=net)
    assert torch.equal(host.encode(pictures), host.encode(pictures))   # no dropout
    assert host.fingerprint() == hosts.tap(net, "head", pictures).fingerprint()
    before.check()


# ---- every kind of host, through T and back

class Bottleneck(nn.Module):
    "A residual block of convolutions, the skip strided where the map shrinks."
    def __init__(self, i, o, stride):
        super().__init__()
        first, second = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.Conv2d(o, o, 3, 1, 1, bias=False)
        self.body = nn.Sequential(first, nn.BatchNorm2d(o), nn.ReLU(inplace=True), second, nn.BatchNorm2d(o))
        self.skip = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o)) if (i, stride) != (o, 1) else nn.Identity()

    def forward(self, x): return torch.relu(self.body(x) + self.skip(x))


class ResNet(nn.Module):
    "Four residual blocks, pooled, ten classes."
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.stages = nn.Sequential(Bottleneck(8, 8, 1), Bottleneck(8, 16, 2), Bottleneck(16, 16, 1), Bottleneck(16, 32, 2))
        self.pool, self.fc = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(32, 10)

    def forward(self, x): return self.fc(self.pool(self.stages(self.stem(x))))


class Reader(nn.Module):
    "torch's own transformer encoder over words, read at its first token."
    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(30, 24), nn.Parameter(0.5 * torch.randn(7, 24))
        layer = nn.TransformerEncoderLayer(24, 4, 48, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(24, 5)

    def forward(self, ids): return self.head(self.encoder(self.words(ids) + self.places)[:, 0])


def smooth(n, side):
    "Pictures (n, 3, side, side) of a few soft blobs each."
    coarse = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(n)) * 2 - 1
    return nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(-1, 1)


def seeded_model(make):
    torch.manual_seed(0)
    return make().eval()


def black_box(n):
    w = torch.linalg.qr(rows(6, 6, 3))[0]
    return hosts.from_functions(lambda x: torch.tanh(x @ w), lambda z: torch.atanh(z) @ w.T, 0.3 * rows(n)), 0.3 * rows(n)


KINDS = {   # name: n -> host and n inputs
    "own net": lambda n: (hosts.tap(zoo.shipped_model("digits-classifier"), "features", x := smooth(n, 32)), x),
    "own autoencoder": lambda n: (zoo.load("digits-autoencoder"), smooth(n, 32)),
    "EfficientNet-Lite0": lambda n: (zoo.efficientnet_lite0(64), smooth(n, 64)),
    "resnet, pooled": lambda n: (hosts.tap(seeded_model(ResNet), "pool", x := smooth(n, 16)), x),
    "resnet, a map between blocks": lambda n: (hosts.tap(seeded_model(ResNet), "stages.3", x := smooth(n, 16)), x),
    "transformer, a token": lambda n: (hosts.tap(seeded_model(Reader), "encoder", x := words(n), token=0), x),
    "transformer, all tokens": lambda n: (hosts.tap(seeded_model(Reader), "encoder.layers.0", x := words(n)), x),
    "face GAN": lambda n: (zoo.face_gan(), rows(n, 100)),
    "two functions": black_box,
}


def words(n): return torch.randint(30, (n, 7), generator=torch.Generator().manual_seed(n))


def shape_of_t(host):
    "As wide as the latent where it is narrow; leading directions of a wide one, convolutions of a map."
    size = {"n_blocks": 2, "hidden": 16}
    if len(host.z_shape) == 3: return FlowConfig(host.dim, shape=host.z_shape, **size)
    return FlowConfig(host.dim, lead=16 if host.dim > 100 else 0, **size)


@pytest.mark.filterwarnings("ignore:flow.init_from")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_host_keeps_its_latents_and_its_answers(kind):
    try: host, x = KINDS[kind](96)
    except MissingExtra as e: pytest.skip(str(e))
    learn, check = (latents.from_array(part, pd.DataFrame(index=range(len(part)))) for part in host.encode(x).split(64))
    recipe, layout = Recipe(n_steps=20, lr=1e-3, eval_every=20), Layout.of({}, host.dim)
    flow, history = objective.train_flow(learn, check, (), layout, shape_of_t(host), recipe, batch=32)
    said = certify(host, flow, x)
    assert history.best_step and said.n == 96 and said.relative_error <= 1e-5
    assert said.same_prediction == (1.0 if host.outputs == "logits" else None) and said.near_ties <= 4
