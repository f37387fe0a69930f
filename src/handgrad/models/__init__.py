"""Whole networks, composed from layers."""

from handgrad.models.convnet import LENET5_STATE, Lenet5Config, ResnetConfig, lenet5, resnet, resnet_state
from handgrad.models.gpt2 import GPT2_STATE, Gpt2Config, gpt2
from handgrad.models.llama import LLAMA_STATE, LlamaConfig, llama
from handgrad.models.lstm_language_model import LstmLanguageModelConfig, lstm_language_model, lstm_language_model_state
from handgrad.models.mlp import mlp
from handgrad.models.published import StateTable, Weight, from_state, load, save, to_state
from handgrad.models.random_check import check_random_networks
from handgrad.models.random_network import RandomNetwork, random_network

__all__ = [
    "GPT2_STATE",
    "LENET5_STATE",
    "LLAMA_STATE",
    "Gpt2Config",
    "Lenet5Config",
    "LlamaConfig",
    "LstmLanguageModelConfig",
    "RandomNetwork",
    "ResnetConfig",
    "StateTable",
    "Weight",
    "check_random_networks",
    "from_state",
    "gpt2",
    "lenet5",
    "llama",
    "load",
    "lstm_language_model",
    "lstm_language_model_state",
    "mlp",
    "random_network",
    "resnet",
    "resnet_state",
    "save",
    "to_state",
]
