"""Tokens that stand for something other than their letters, in the order that gives them their ids."""

from __future__ import annotations

END_OF_TEXT = "<|endoftext|>"

_SOUNDS = """
    [breath] <strong> </strong> [noise] [laughter] [cough] [clucking] [accent] [quick_breath] <laughter> </laughter>
    [hissing] [sigh] [vocalized-noise] [lipsmack] [mn]
"""

# ARPAbet; a vowel (marked *) also comes with the stress digits 0, 1 and 2
_PHONES = """
    AA* AE* AH* AO* AW* AY* B CH D DH EH* ER* EY* F G HH IH* IY* JH K L M N NG OW* OY* P R S SH T TH UH* UW* V W Y Z ZH
"""

# initials, then finals without and with their tone
_PINYIN = """
    a ai an ang ao b c ch d e ei en eng f g h i ian in ing iu
    ià iàn iàng iào iá ián iáng iáo iè ié iòng ióng iù iú iā iān iāng iāo iē iě iōng iū iǎ iǎn iǎng iǎo iǒng iǔ
    j k l m n o ong ou p q r s sh t u uang ue un uo
    uà uài uàn uàng uá uái uán uáng uè ué uì uí uò uó uā uāi uān uāng uē uě uī uō uǎ uǎi uǎn uǎng uǐ uǒ
    vè w x y z zh
    à ài àn àng ào á ái án áng áo è èi èn èng èr é éi én éng ér ì ìn ìng í ín íng ò òng òu ó óng óu ù ùn ú ún
    ā āi ān āng āo ē ēi ēn ēng ě ěi ěn ěng ěr ī īn īng ō ōng ōu ū ūn ǎ ǎi ǎn ǎng ǎo ǐ ǐn ǐng ǒ ǒng ǒu ǔ ǔn ǘ ǚ ǜ
"""

_WHISPER_LANGUAGES = """
    en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi ml cy
    sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd gu am yi lo
    uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue
"""
_WHISPER_TIMESTAMPS = 1501  # every 20 ms from 0 to 30 s


def _phones() -> list[str]:
    stresses = {True: ("", "0", "1", "2"), False: ("",)}
    return [f"[{phone.rstrip('*')}{stress}]" for phone in _PHONES.split() for stress in stresses[phone.endswith("*")]]


COSYVOICE2 = (END_OF_TEXT, "<|im_start|>", "<|im_end|>", "<|endofprompt|>", *_SOUNDS.split())
"""Added to Qwen2's vocabulary, of which the first three are part already."""

COSYVOICE3 = (*COSYVOICE2, "<|endofsystem|>", *_phones(), *(f"[{sound}]" for sound in _PINYIN.split()))

WHISPER = (
    END_OF_TEXT,
    "<|startoftranscript|>",
    *(f"<|{language}|>" for language in _WHISPER_LANGUAGES.split()),
    *("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"),
    *(f"<|{0.02 * step:.2f}|>" for step in range(_WHISPER_TIMESTAMPS)),
)
"""Follow Whisper's multilingual ranks (large-v3: 100 languages)."""
