from __future__ import annotations

import builtins
import importlib.metadata
import sys
from types import ModuleType

import onnxruntime
import pytest

from mmbm_onnx.errors import OptionError, RuntimeMissingError
from mmbm_onnx.runtime import providers


@pytest.fixture(autouse=True)
def fresh_caches():
    def clear():
        providers._installed_distributions.cache_clear()
        providers._warn_of_conflict.cache_clear()

    clear()
    yield
    clear()


def pretend_installed(monkeypatch, *names: str) -> None:
    def distribution(name: str) -> object:
        if name not in names:
            raise importlib.metadata.PackageNotFoundError(name)
        return object()

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)


def refuse_import(monkeypatch) -> None:
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "onnxruntime":
            raise ImportError("libfoo.so:\nnot found")
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "onnxruntime")
    monkeypatch.setattr(builtins, "__import__", refuse)


def test_missing_onnxruntime_names_both_extras(monkeypatch):
    pretend_installed(monkeypatch)
    refuse_import(monkeypatch)
    with pytest.raises(RuntimeMissingError, match="not installed") as caught:
        providers.load_onnxruntime()
    assert "mmbm-onnx[cpu]" in str(caught.value)
    assert "mmbm-onnx[gpu]" in str(caught.value)


def test_installed_but_unimportable_onnxruntime_says_why(monkeypatch):
    pretend_installed(monkeypatch, "onnxruntime-gpu")
    refuse_import(monkeypatch)
    with pytest.raises(RuntimeMissingError, match=r"onnxruntime-gpu.*libfoo.so: not found"):
        providers.load_onnxruntime()


def test_leftover_directory_is_a_broken_installation(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
    with pytest.raises(RuntimeMissingError, match="broken"):
        providers.load_onnxruntime()


def test_two_distributions_are_warned_of_once(monkeypatch):
    pretend_installed(monkeypatch, "onnxruntime", "onnxruntime-gpu")
    with pytest.warns(RuntimeWarning, match="onnxruntime and onnxruntime-gpu") as caught:
        providers.load_onnxruntime()
        providers.load_onnxruntime()
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)


def test_one_distribution_is_not_warned_of(monkeypatch, recwarn):
    pretend_installed(monkeypatch, "onnxruntime-gpu")
    assert providers.load_onnxruntime() is onnxruntime
    assert not recwarn.list


@pytest.mark.parametrize(
    ("name", "full"),
    [
        (None, "CPUExecutionProvider"),
        ("cpu", "CPUExecutionProvider"),
        (" CUDA ", "CUDAExecutionProvider"),
        ("tensorrt", "TensorrtExecutionProvider"),
        ("cudaexecutionprovider", "CUDAExecutionProvider"),
        ("OpenVINOExecutionProvider", "OpenVINOExecutionProvider"),
        ("AzureExecutionProvider", "AzureExecutionProvider"),
    ],
)
def test_names_resolve(name, full):
    assert providers.resolve_provider(name) == full


def test_every_alias_resolves_to_itself():
    assert all(providers.resolve_provider(a) == full for a, full in providers.ALIASES.items())


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("cdua", "cuda"), ("tensort", "tensorrt"), ("CUDAExecutionProvder", "CUDAExecutionProvider")],
)
def test_misspelt_names_get_a_suggestion(name, suggestion):
    with pytest.raises(OptionError, match=f"did you mean {suggestion}"):
        providers.resolve_provider(name)


def test_names_like_none_list_the_known_ones():
    with pytest.raises(OptionError, match=r"'zzzzz'; known: .*cpu, cuda"):
        providers.resolve_provider("zzzzz")


def test_chain_ends_on_the_cpu(monkeypatch):
    assert providers.provider_chain(providers.CPU) == [providers.CPU]
    exact = (providers.CUDA, {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"})
    assert providers.provider_chain(providers.CUDA) == [exact, providers.CPU]
    defaults = [(providers.CUDA, {}), providers.CPU]
    assert providers.provider_chain(providers.CUDA, defaults=True) == defaults
    monkeypatch.setattr(
        onnxruntime,
        "get_available_providers",
        lambda: [providers.TENSORRT, providers.CUDA, providers.CPU],
    )
    assert providers.provider_chain(providers.TENSORRT) == [
        providers.TENSORRT,
        exact,
        providers.CPU,
    ]


@pytest.fixture
def nothing_preloaded():
    providers.preload_cuda.cache_clear()
    yield
    providers.preload_cuda.cache_clear()


def test_cuda_is_looked_for_where_pip_puts_it(monkeypatch, capsys, nothing_preloaded):
    asked = []

    def preload():
        print("Failed to load libcudart.so.13")
        asked.append(True)
        raise RuntimeError("no such folder")

    monkeypatch.setattr(onnxruntime, "preload_dlls", preload, raising=False)
    providers.preload_cuda()
    providers.preload_cuda()
    assert asked == [True]
    assert capsys.readouterr().out == ""
    monkeypatch.delattr(onnxruntime, "preload_dlls")
    providers.preload_cuda.cache_clear()
    providers.preload_cuda()  # ONNX Runtime before 1.21
    assert asked == [True]


def test_unavailable_provider_names_what_is_there(monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [providers.CPU])
    providers.require_available(providers.CPU)
    with pytest.raises(RuntimeMissingError, match=r"available: CPUExecutionProvider.*\[gpu\]"):
        providers.require_available(providers.CUDA)
