from wav2clip_gen.models.choice import Choice as ModelSelection
from wav2clip_gen.models.choice import Part as Component
from wav2clip_gen.models.choice import choose as select_models
from wav2clip_gen.models.choice import hears as supports_audio
from wav2clip_gen.models.choice import require_one_space as require_shared_space
from wav2clip_gen.models.families import Family as Models
from wav2clip_gen.models.families import choose_device, computes_in_bf16, load_family
from wav2clip_gen.models.families import load_choice as load_models

__all__ = ["Component", "ModelSelection", "Models", "choose_device", "computes_in_bf16", "load_family", "load_models", "require_shared_space", "select_models", "supports_audio"]
