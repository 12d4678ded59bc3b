"""The sentences of the generated corpora: how each language asks, answers in one word, and answers in a sentence.

Slots: `{x}` what is asked about, `{y}` the answer, `{c}` the category, colour or target language, `{q}` the question,
`{name}` who asks. A question has two wordings; a thorough answer is a whole sentence that repeats `{x}` or `{c}`.
Imports nothing.
"""

from dataclasses import dataclass

__all__ = ["PHRASES", "TASKS", "Phrases"]

TASKS = ("capital", "opposite", "colour", "category", "translate", "add", "largest", "reverse")


@dataclass(frozen=True, kw_only=True)
class Phrases:
    """How one language asks and answers."""

    short_frame: str
    long_frame: str
    greeting: str
    """How a thorough answer begins: it addresses the asker by name."""
    comma: str
    last_comma: str
    """What stands before the last item of a list to choose from (" or ")."""
    questions: dict[str, tuple[str, str]]
    sentences: dict[str, str]


PHRASES = {
    "en": Phrases(
        short_frame="{name} here. {q}",
        long_frame="Good morning, my name is {name} and I have a question. {q}",
        greeting="Hello {name}! ",
        comma=", ",
        last_comma=" or ",
        questions={
            "capital": ("What is the capital of {x}?", "Which city is the capital of {x}?"),
            "opposite": ("What is the opposite of {x}?", "Which word means the opposite of {x}?"),
            "colour": ("Which of these is {c}: {x}?", "What is {c}: {x}?"),
            "category": ("Which word names {c}: {x}?", "Which of these is {c}: {x}?"),
            "translate": ("How do you say {x} {c}?", "What is the word {x} {c}?"),
            "add": ("What is {x}?", "How much is {x}?"),
            "largest": ("Which number is the largest: {x}?", "What is the largest of {x}?"),
            "reverse": ("Please reverse these words: {x}.", "Say these words backwards: {x}."),
        },
        sentences={
            "capital": "The capital of {x} is {y}.",
            "opposite": "The opposite of {x} is {y}.",
            "colour": "Of these, {y} is {c}.",
            "category": "The word {y} names {c}.",
            "translate": "The word {x} {c} is {y}.",
            "add": "The sum {x} is {y}.",
            "largest": "The largest number is {y}.",
            "reverse": "The words backwards are {y}.",
        },
    ),
    "de": Phrases(
        short_frame="Hier ist {name}. {q}",
        long_frame="Guten Morgen, ich heiße {name} und habe eine Frage. {q}",
        greeting="Hallo {name}! ",
        comma=", ",
        last_comma=" oder ",
        questions={
            "capital": ("Was ist die Hauptstadt von {x}?", "Welche Stadt ist die Hauptstadt von {x}?"),
            "opposite": ("Was ist das Gegenteil von {x}?", "Welches Wort ist das Gegenteil von {x}?"),
            "colour": ("Was davon ist {c}: {x}?", "Was ist {c}: {x}?"),
            "category": ("Welches Wort nennt {c}: {x}?", "Was davon ist {c}: {x}?"),
            "translate": ("Wie sagt man {x} {c}?", "Was heißt {x} {c}?"),
            "add": ("Was ist {x}?", "Wie viel ist {x}?"),
            "largest": ("Welche Zahl ist die größte: {x}?", "Was ist die größte Zahl: {x}?"),
            "reverse": ("Bitte kehre diese Wörter um: {x}.", "Sage diese Wörter rückwärts: {x}."),
        },
        sentences={
            "capital": "Die Hauptstadt von {x} ist {y}.",
            "opposite": "Das Gegenteil von {x} ist {y}.",
            "colour": "Davon ist {y} {c}.",
            "category": "Das Wort {y} nennt {c}.",
            "translate": "Das Wort {x} heißt {c} {y}.",
            "add": "Die Summe {x} ist {y}.",
            "largest": "Die größte Zahl ist {y}.",
            "reverse": "Rückwärts sind die Wörter {y}.",
        },
    ),
    "es": Phrases(
        short_frame="Soy {name}. {q}",
        long_frame="Buenos días, me llamo {name} y tengo una pregunta. {q}",
        greeting="¡Hola, {name}! ",
        comma=", ",
        last_comma=" o ",
        questions={
            "capital": ("¿Cuál es la capital de {x}?", "¿Qué ciudad es la capital de {x}?"),
            "opposite": ("¿Cuál es el contrario de {x}?", "¿Qué palabra es el contrario de {x}?"),
            "colour": ("¿Qué es de color {c}: {x}?", "¿Cuál de estas cosas es de color {c}: {x}?"),
            "category": ("¿Qué palabra nombra {c}: {x}?", "¿Cuál de estas palabras es {c}: {x}?"),
            "translate": ("¿Cómo se dice {x} {c}?", "¿Cuál es la palabra {x} {c}?"),
            "add": ("¿Cuánto es {x}?", "¿Cuál es la suma {x}?"),
            "largest": ("¿Qué número es el mayor: {x}?", "¿Cuál es el número mayor: {x}?"),
            "reverse": ("Por favor, invierte estas palabras: {x}.", "Di estas palabras al revés: {x}."),
        },
        sentences={
            "capital": "La capital de {x} es {y}.",
            "opposite": "El contrario de {x} es {y}.",
            "colour": "De color {c} es {y}.",
            "category": "La palabra {y} nombra {c}.",
            "translate": "La palabra {x} se dice {c} {y}.",
            "add": "La suma {x} es {y}.",
            "largest": "El número mayor es {y}.",
            "reverse": "Las palabras al revés son {y}.",
        },
    ),
    "fr": Phrases(
        short_frame="Ici {name}. {q}",
        long_frame="Bonjour, je m'appelle {name} et j'ai une question. {q}",
        greeting="Bonjour {name} ! ",
        comma=", ",
        last_comma=" ou ",
        questions={
            "capital": ("Quelle est la capitale {x} ?", "Quelle ville est la capitale {x} ?"),
            "opposite": ("Quel est le contraire de {x} ?", "Quel mot est le contraire de {x} ?"),
            "colour": ("Qu'est-ce qui est {c} : {x} ?", "Dis-moi ce qui est {c} : {x}."),
            "category": ("Quel mot désigne {c} : {x} ?", "Lequel de ces mots est {c} : {x} ?"),
            "translate": ("Comment dit-on {x} {c} ?", "Quel est le mot {x} {c} ?"),
            "add": ("Combien font {x} ?", "Quelle est la somme {x} ?"),
            "largest": ("Quel nombre est le plus grand : {x} ?", "Quel est le plus grand nombre : {x} ?"),
            "reverse": ("Inverse ces mots, s'il te plaît : {x}.", "Dis ces mots à l'envers : {x}."),
        },
        sentences={
            "capital": "La capitale {x} est {y}.",
            "opposite": "Le contraire de {x} est {y}.",
            "colour": "Ce qui est {c}, c'est {y}.",
            "category": "Le mot {y} désigne {c}.",
            "translate": "Le mot {x} se dit {c} {y}.",
            "add": "La somme {x} est {y}.",
            "largest": "Le plus grand nombre est {y}.",
            "reverse": "Les mots à l'envers sont {y}.",
        },
    ),
    "ru": Phrases(
        short_frame="Это {name}. {q}",
        long_frame="Доброе утро, меня зовут {name}, и у меня есть вопрос. {q}",
        greeting="Привет, {name}! ",
        comma=", ",
        last_comma=" или ",
        questions={
            "capital": ("Какая столица у {x}?", "Какой город — столица {x}?"),
            "opposite": ("Что противоположно слову {x}?", "Какое слово — антоним слова {x}?"),
            "colour": ("Что {c} цвета: {x}?", "Что из этого {c} цвета: {x}?"),
            "category": ("Какое слово называет {c}: {x}?", "Какое из этих слов — {c}: {x}?"),
            "translate": ("Как сказать {x} {c}?", "Как будет {x} {c}?"),
            "add": ("Сколько будет {x}?", "Чему равно {x}?"),
            "largest": ("Какое число самое большое: {x}?", "Назови самое большое число: {x}."),
            "reverse": ("Переставь слова наоборот: {x}.", "Скажи слова в обратном порядке: {x}."),
        },
        sentences={
            "capital": "Столица {x} — {y}.",
            "opposite": "Слову {x} противоположно {y}.",
            "colour": "Здесь {c} цвета {y}.",
            "category": "Слово {y} называет {c}.",
            "translate": "Слово {x} {c} будет {y}.",
            "add": "Сумма {x} равна {y}.",
            "largest": "Самое большое число — {y}.",
            "reverse": "Слова наоборот: {y}.",
        },
    ),
    "zh": Phrases(
        short_frame="我是{name}。{q}",
        long_frame="早上好，我叫{name}，我有一个问题。{q}",
        greeting="你好，{name}！",
        comma="、",
        last_comma="还是",
        questions={
            "capital": ("{x}的首都是哪里？", "哪个城市是{x}的首都？"),
            "opposite": ("{x}的反义词是什么？", "哪个词是{x}的反义词？"),
            "colour": ("哪个是{c}的：{x}？", "什么东西是{c}的：{x}？"),
            "category": ("哪个词表示{c}：{x}？", "哪个词是{c}：{x}？"),
            "translate": ("{x}用{c}怎么说？", "{x}的{c}是什么？"),
            "add": ("{x} 等于多少？", "{x} 是多少？"),
            "largest": ("哪个数最大：{x}？", "最大的数是哪个：{x}？"),
            "reverse": ("请把这些词倒过来：{x}。", "请倒着说这些词：{x}。"),
        },
        sentences={
            "capital": "{x}的首都是{y}。",
            "opposite": "{x}的反义词是{y}。",
            "colour": "这里{y}是{c}的。",
            "category": "{y}这个词表示{c}。",
            "translate": "{x}用{c}说是{y}。",
            "add": "{x} 等于 {y}。",
            "largest": "最大的数是{y}。",
            "reverse": "倒过来是{y}。",
        },
    ),
    "ar": Phrases(
        short_frame="معك {name}. {q}",
        long_frame="صباح الخير، اسمي {name} وعندي سؤال. {q}",
        greeting="مرحبا {name}! ",
        comma="، ",
        last_comma=" أو ",
        questions={
            "capital": ("ما هي عاصمة {x}؟", "أي مدينة هي عاصمة {x}؟"),
            "opposite": ("ما عكس كلمة {x}؟", "أي كلمة هي عكس كلمة {x}؟"),
            "colour": ("ما الذي لونه {c}: {x}؟", "أي شيء لونه {c}: {x}؟"),
            "category": ("أي كلمة تدل على {c}: {x}؟", "أي كلمة من هذه معناها {c}: {x}؟"),
            "translate": ("كيف نقول {x} {c}؟", "ما كلمة {x} {c}؟"),
            "add": ("كم يساوي {x}؟", "ما مجموع {x}؟"),
            "largest": ("ما أكبر عدد: {x}؟", "أي عدد هو الأكبر: {x}؟"),
            "reverse": ("اعكس ترتيب هذه الكلمات: {x}.", "قل هذه الكلمات بالعكس: {x}."),
        },
        sentences={
            "capital": "عاصمة {x} هي {y}.",
            "opposite": "عكس كلمة {x} هو {y}.",
            "colour": "الشيء الذي لونه {c} هو {y}.",
            "category": "كلمة {y} تدل على {c}.",
            "translate": "كلمة {x} {c} هي {y}.",
            "add": "مجموع {x} يساوي {y}.",
            "largest": "أكبر عدد هو {y}.",
            "reverse": "الكلمات بالعكس هي {y}.",
        },
    ),
}
