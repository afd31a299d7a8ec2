from wav2clip_gen.models.families import Family as Models, choose_device, computes_in_bf16, load_choice as load_models, load_family
from wav2clip_gen.models.choice import Choice as ModelSelection, Part as Component, choose as select_models, hears as supports_audio, require_one_space as require_shared_space
__all__ = ["Models", "ModelSelection", "Component", "choose_device", "computes_in_bf16", "load_models", "load_family", "select_models", "supports_audio", "require_shared_space"]
