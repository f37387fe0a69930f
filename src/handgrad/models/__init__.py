"""Whole networks, composed from layers, and their published weights."""

from handgrad.models.convnet import (
    LENET5_STATE as LENET5_STATE,
    Lenet5Config as Lenet5Config,
    ResnetConfig as ResnetConfig,
    lenet5 as lenet5,
    resnet as resnet,
    resnet_state as resnet_state,
)
from handgrad.models.files import load as load, save as save
from handgrad.models.gpt2 import GPT2_STATE as GPT2_STATE, Gpt2Config as Gpt2Config, gpt2 as gpt2
from handgrad.models.linear_time_language_model import (
    LinearTimeLanguageModelConfig as LinearTimeLanguageModelConfig,
    linear_time_language_model as linear_time_language_model,
)
from handgrad.models.llama import (
    LLAMA_STATE as LLAMA_STATE,
    LlamaConfig as LlamaConfig,
    llama as llama,
    llama_state as llama_state,
)
from handgrad.models.lstm_language_model import (
    LstmLanguageModelConfig as LstmLanguageModelConfig,
    lstm_language_model as lstm_language_model,
    lstm_language_model_state as lstm_language_model_state,
)
from handgrad.models.mlp import mlp as mlp
from handgrad.models.published import from_state as from_state, to_state as to_state
from handgrad.models.published_llama import published_llama as published_llama
from handgrad.models.random_check import check_random_networks as check_random_networks
from handgrad.models.random_network import RandomNetwork as RandomNetwork, random_network as random_network
from handgrad.models.state_table import StateTable as StateTable, Weight as Weight
from handgrad.models.summary import Summary as Summary, SummaryRow as SummaryRow, summary as summary
